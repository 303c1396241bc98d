//! Entry point of the `tidemark` program.

fn main() {}
