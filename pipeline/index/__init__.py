"""The index stage: photos -> manifest.parquet."""
