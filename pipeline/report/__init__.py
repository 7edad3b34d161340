"""The report stage: figures and mosaics -> report/index.html."""
