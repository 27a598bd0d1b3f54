//! Parses Hermit images (ELF files and gzip'd tars) and loads them into guest memory, without a panic whatever the bytes.
