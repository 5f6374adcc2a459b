//! Generates the code of the protocols, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/inference.proto", "proto/health.proto"], ["proto"])?;
    // Raw tensors keep the received buffer: they are not copied before they become typed values.
    tonic_prost_build::configure()
        .codec_path("crate::codec::BoundedCodec")
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .compile_fds(files)?;
    Ok(())
}
