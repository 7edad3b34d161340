"""The science: labelled arrays in, labelled arrays out; no storage, no scheduler, no command line."""
