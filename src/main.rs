//! Entry point of the `tidemark` program.

fn main() -> std::process::ExitCode {
    tidemark::cli::main()
}
