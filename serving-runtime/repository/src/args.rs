//! Options of `serve` and `worker`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use slipway_runtime_engine::fetch::FetchOptions;
use slipway_runtime_predict::load::BuildOptions;
use slipway_runtime_predict::repository::ModelRepository;

use crate::directory::{DirectoryRepository, RepositoryOptions};

/// Where further models are, and how much memory they may take.
#[derive(Debug, Clone, Args)]
pub struct RepositoryArgs {
    /// Further models, `<directory>/<name>/<version>/model.onnx`, that clients may load and unload
    /// by the repository API. Off when absent.
    #[arg(long, env = "SLIPWAY_MODEL_REPOSITORY")]
    pub model_repository: Option<PathBuf>,
    /// Memory for all models of the repository together, in bytes; those that were not used for
    /// longest make room.
    #[arg(long, env = "SLIPWAY_MAX_MODELS_BYTES", default_value_t = 1 << 30)]
    pub max_models_bytes: u64,
}

impl RepositoryArgs {
    /// The repository, where a directory was given; its models are read and built as the server's
    /// own.
    pub fn open(
        &self,
        fetch: FetchOptions,
        build: BuildOptions,
    ) -> Option<Arc<dyn ModelRepository>> {
        let directory = self.model_repository.clone()?;
        let max_bytes = self.max_models_bytes;
        let options = RepositoryOptions { directory, max_bytes, fetch, build };
        Some(Arc::new(DirectoryRepository::new(options)))
    }
}
