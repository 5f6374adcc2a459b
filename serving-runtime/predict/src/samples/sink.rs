//! The destination of samples: files in a directory, or objects in a store. A new file or object
//! begins at a size and at an age.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use slipway_runtime_engine::fetch::environment_settings;
use url::Url;

use crate::observe::args::ObserveArgs;
use crate::samples::{SampleCounters, SampleOrigin};

/// Time limit for one object.
const PUT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum SinkTarget {
    Directory {
        path: PathBuf,
        open: Option<File>,
        written_files: VecDeque<PathBuf>,
        max_files: usize,
    },
    Store {
        store: Box<dyn ObjectStore>,
        prefix: Key,
        buffer: Vec<u8>,
    },
}

#[derive(Debug)]
pub(super) struct SampleWriter {
    target: SinkTarget,
    prefix: String,
    max_bytes: u64,
    max_age: Duration,
    started_at: Option<Instant>,
    bytes: u64,
    lines: u64,
    files: u64,
    counters: SampleCounters,
}

impl SampleWriter {
    /// # Errors
    /// A text, when the sink is invalid.
    pub(super) fn new(
        observe: &ObserveArgs,
        origin: &SampleOrigin,
        counters: SampleCounters,
    ) -> Result<Self, String> {
        let sink = &observe.sample_sink;
        let want = "want file:///directory, or s3://, gs:// or az:// with bucket and prefix";
        let url = Url::parse(sink).map_err(|e| format!("{sink:?}: {e}; {want}"))?;
        let place = match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| format!("{sink:?}: {want}"))?;
                std::fs::create_dir_all(&path)
                    .map_err(|e| format!("cannot create {}: {e}", path.display()))?;
                let most = observe.sample_files as usize;
                SinkTarget::Directory {
                    path,
                    open: None,
                    written_files: VecDeque::new(),
                    max_files: most,
                }
            }
            "s3" | "gs" | "az" => {
                let (store, prefix) = object_store::parse_url_opts(&url, environment_settings())
                    .map_err(|e| format!("{sink:?}: {e}"))?;
                SinkTarget::Store { store, prefix, buffer: Vec::new() }
            }
            other => return Err(format!("{other}:// is none of ours; {want}")),
        };
        let pod = if origin.pod_name.is_empty() {
            format!("{:08x}", rand::random::<u32>())
        } else {
            origin.pod_name.clone()
        };
        Ok(Self {
            target: place,
            prefix: format!("{}-{pod}", origin.revision),
            max_bytes: observe.sample_file_bytes,
            max_age: Duration::from_secs(observe.sample_file_seconds),
            started_at: None,
            bytes: 0,
            lines: 0,
            files: 0,
            counters,
        })
    }

    fn next_file_name(&mut self) -> String {
        self.files += 1;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        format!("{}-{seconds}-{}.jsonl", self.prefix, self.files)
    }

    /// Appends a line; a line that cannot be written is counted as dropped.
    pub(super) async fn append(&mut self, line: &[u8]) {
        if self.started_at.is_none() {
            self.start_file();
        }
        let written = match &mut self.target {
            SinkTarget::Directory { open: Some(file), .. } => {
                file.write_all(line).map_err(|e| e.to_string())
            }
            SinkTarget::Directory { open: None, .. } => Err("there is no open file".to_owned()),
            SinkTarget::Store { buffer, .. } => {
                buffer.extend_from_slice(line);
                Ok(())
            }
        };
        match written {
            Ok(()) => {
                self.bytes += line.len() as u64;
                self.lines += 1;
                // In a store, lines exist only once the object is written.
                if matches!(self.target, SinkTarget::Directory { .. }) {
                    self.counters.written.inc();
                }
            }
            Err(error) => {
                tracing::warn!(error, "a sample was not written");
                self.counters.dropped.inc();
                self.started_at = None;
            }
        }
        if self.bytes >= self.max_bytes {
            self.rotate().await;
        }
    }

    fn start_file(&mut self) {
        let name = self.next_file_name();
        (self.bytes, self.lines, self.started_at) = (0, 0, Some(Instant::now()));
        let SinkTarget::Directory { path, open, written_files: kept, max_files: most } =
            &mut self.target
        else {
            return;
        };
        let path = path.join(name);
        *open = OpenOptions::new().create_new(true).append(true).open(&path).ok();
        kept.push_back(path);
        while kept.len() > *most {
            if let Some(oldest) = kept.pop_front() {
                let _ = std::fs::remove_file(oldest);
            }
        }
    }

    /// Closes a file that is old enough.
    pub(super) async fn rotate_if_old(&mut self) {
        if self.started_at.is_some_and(|begun| begun.elapsed() >= self.max_age) {
            self.rotate().await;
        }
    }

    /// Closes the file, or writes the object.
    pub(super) async fn rotate(&mut self) {
        if self.started_at.take().is_none() {
            return;
        }
        let name = self.next_file_name();
        let lines = self.lines;
        match &mut self.target {
            SinkTarget::Directory { open, .. } => *open = None,
            SinkTarget::Store { store, prefix, buffer } => {
                let payload = PutPayload::from(std::mem::take(buffer));
                let key = prefix.clone().join(name);
                let put = tokio::time::timeout(PUT_TIMEOUT, store.put(&key, payload)).await;
                match put
                    .map_err(|_| format!("not within {} s", PUT_TIMEOUT.as_secs()))
                    .and_then(|r| r.map_err(|e| e.to_string()))
                {
                    Ok(_) => {
                        self.counters.written.inc_by(lines);
                    }
                    Err(error) => {
                        tracing::warn!(error, lines, "the object store did not take samples");
                        self.counters.dropped.inc_by(lines);
                    }
                }
            }
        }
        (self.bytes, self.lines) = (0, 0);
    }
}
