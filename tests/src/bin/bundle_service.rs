//! A bundle service for very many apps; see `tests::bundle_service`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tests::bundle_service::main()
}
