//! Prints for model files whether the model treats the rows of a batch independently: `cargo run -p
//! slipway-onnx --example prove FILE...`.
use std::path::Path;

fn main() {
    for file in std::env::args().skip(1) {
        let verdict = match slipway_onnx::read_model(Path::new(&file)) {
            Ok(model) => slipway_onnx::independence::prove_row_independence(&model)
                .map_or_else(|why| format!("no: {why}"), |()| "yes".into()),
            Err(error) => format!("cannot be read: {error}"),
        };
        println!("{file}: {verdict}");
    }
}
