//! What only locks in files can go wrong with: the files.
