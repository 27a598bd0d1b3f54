//! Tests of whole images: made here byte by byte, loaded, compared, damaged.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "the files made here are small")]

mod differential;
mod errors;
mod exercise;
mod from_file;
mod hostile;
mod images;
