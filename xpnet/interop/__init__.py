"""Ways in and out: files and other libraries."""
