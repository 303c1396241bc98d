//! Holds what is in `packaging/`, `compose.yaml`, `Dockerfile` and the package's metadata to the program: the command lines
//! and variables in them are taken by the configuration itself, and what must agree with each other does.

mod commit;
mod compose;
mod debian;
mod files;
mod kubernetes;
mod monitoring;
mod release;
