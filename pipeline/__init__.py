"""Everything with a side effect: stores, photos, configuration, execution, command line."""
