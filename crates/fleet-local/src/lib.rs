#![doc = include_str!("../README.md")]

pub mod container;
pub mod image;
