//! Samples of requests and answers for users and pipelines: JSON lines in files or an object store.
//!
//! A sample never delays a request: it is copied, handed over without waiting, and written by a
//! separate thread. Samples that the sink cannot accept in time are dropped and counted.

mod sink;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Serialize;
use slipway_baseline::GoldenTensor;
use slipway_contracts::metric_names::{RUNTIME_SAMPLES_DROPPED_TOTAL, family_name};
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};
use slipway_runtime_engine::tensor::{Tensor, TensorData};
use tokio::sync::{mpsc, oneshot};

use self::sink::SampleWriter;
use crate::observe::args::ObserveArgs;
use crate::observe::golden;

/// Largest number of waiting samples, whatever their size.
const QUEUE_CAPACITY: usize = 1024;
/// How long the shutdown waits for the last file.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Counters of written and dropped samples.
#[derive(Debug, Clone, Default)]
pub struct SampleCounters {
    written: Counter,
    dropped: Counter,
}

impl SampleCounters {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "slipway_runtime_samples_written",
            "Samples in the sink",
            self.written.clone(),
        );
        registry.register(
            family_name(RUNTIME_SAMPLES_DROPPED_TOTAL),
            "Samples that were dropped, because the sink was slow or failed",
            self.dropped.clone(),
        );
    }
}

/// A request that is sampled, until its answer is available.
#[derive(Debug)]
pub struct PendingSample {
    inputs: Vec<Tensor>,
    reservation: SampleReservation,
}

/// A share of the bytes that may wait; released on drop.
#[derive(Debug)]
struct SampleReservation {
    queued_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl SampleReservation {
    fn try_reserve(waiting: &Arc<AtomicUsize>, bytes: usize, most: usize) -> Option<Self> {
        let grow = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= most);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
        Some(Self { queued_bytes: Arc::clone(waiting), bytes })
    }
}

impl Drop for SampleReservation {
    fn drop(&mut self) {
        self.queued_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum WriterMessage {
    Sample(Box<PayloadSample>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
struct PayloadSample {
    seconds: f64,
    id: String,
    model: Arc<str>,
    signature: Arc<ModelSignature>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    _reservation: SampleReservation,
}

/// One line of the sink.
#[derive(Serialize)]
struct SampleLine<'a> {
    time: f64,
    prediction_id: &'a str,
    modeldeployment: &'a str,
    revision: &'a str,
    model: &'a str,
    inputs: Vec<SampledTensor>,
    outputs: Vec<SampledTensor>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SampledTensor {
    Whole(GoldenTensor),
    Redacted { name: String, datatype: &'static str, shape: Vec<usize>, redacted: bool },
}

#[derive(Debug)]
pub struct PayloadSampler {
    share: f64,
    max_queued_bytes: usize,
    queued_bytes: Arc<AtomicUsize>,
    sender: mpsc::Sender<WriterMessage>,
    counters: SampleCounters,
}

/// The origin of samples.
#[derive(Debug, Clone)]
pub struct SampleOrigin {
    /// Name of the ModelDeployment.
    pub modeldeployment: String,
    /// Revision of the pod.
    pub revision: String,
    /// Name of the pod, if it is known.
    pub pod_name: String,
}

/// The fields of a line besides the sample.
#[derive(Debug)]
struct SampleContext {
    modeldeployment: String,
    revision: String,
    redact: HashSet<String>,
}

impl PayloadSampler {
    /// Starts the writer, if samples are configured.
    ///
    /// # Errors
    /// Permanent, for an unknown sink: a pod whose samples go nowhere would otherwise seem to work.
    pub fn start(
        observe: &ObserveArgs,
        origin: SampleOrigin,
        counters: &SampleCounters,
    ) -> Result<Option<Self>, LoadError> {
        if observe.sample_payloads <= 0.0 {
            return Ok(None);
        }
        let invalid = |what: String| {
            LoadError::permanent(LoadErrorReason::LoadFailed, format!("--sample-sink: {what}"))
        };
        let writer = SampleWriter::new(observe, &origin, counters.clone()).map_err(invalid)?;
        let names = SampleContext {
            modeldeployment: origin.modeldeployment,
            revision: origin.revision,
            redact: observe.sample_redact.iter().cloned().collect(),
        };
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let counted = counters.clone();
        let thread = std::thread::Builder::new().name("samples".into());
        thread.spawn(move || write_samples(receiver, writer, &names, &counted)).map_err(|e| {
            LoadError::transient(
                LoadErrorReason::LoadFailed,
                format!("cannot start the samples' thread: {e}"),
            )
        })?;
        let (share, most) = (observe.sample_payloads, observe.sample_buffer_bytes);
        Ok(Some(Self {
            share,
            max_queued_bytes: most,
            queued_bytes: Arc::default(),
            sender,
            counters: counters.clone(),
        }))
    }

    /// Decides whether a request is sampled, and copies its inputs if so.
    pub fn sample_inputs(&self, inputs: &[Tensor]) -> Option<PendingSample> {
        if rand::random::<f64>() >= self.share {
            return None;
        }
        // Outputs are rarely larger than inputs; both are bounded by the size of a request.
        let bytes = inputs.iter().map(|t| tensor_data_bytes(&t.data)).sum::<usize>() * 2;
        let Some(held) =
            SampleReservation::try_reserve(&self.queued_bytes, bytes, self.max_queued_bytes)
        else {
            self.counters.dropped.inc();
            return None;
        };
        Some(PendingSample { inputs: inputs.to_vec(), reservation: held })
    }

    /// Passes an answered request to the writer.
    pub fn offer(
        &self,
        pending: PendingSample,
        id: &str,
        model: &str,
        signature: &ModelSignature,
        outputs: &[Tensor],
    ) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let sample = PayloadSample {
            seconds,
            id: id.to_owned(),
            model: model.into(),
            signature: Arc::new(signature.clone()),
            inputs: pending.inputs,
            outputs: outputs.to_vec(),
            _reservation: pending.reservation,
        };
        if self.sender.try_send(WriterMessage::Sample(Box::new(sample))).is_err() {
            self.counters.dropped.inc();
        }
    }

    /// Writes the waiting samples; called after the last request is answered.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let work = async {
            if self.sender.send(WriterMessage::Close(done)).await.is_ok() {
                let _ = closed.await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, work).await.is_err() {
            tracing::warn!(
                seconds = CLOSE_TIMEOUT.as_secs(),
                "the last samples were not written in time"
            );
        }
    }
}

fn tensor_data_bytes(data: &TensorData) -> usize {
    match (data, data.datatype().width()) {
        (TensorData::Bytes(v), _) => v.iter().map(|s| s.len() + size_of::<String>()).sum(),
        (_, width) => data.len() * width.unwrap_or(1),
    }
}

fn write_samples(
    mut receiver: mpsc::Receiver<WriterMessage>,
    mut writer: SampleWriter,
    names: &SampleContext,
    counters: &SampleCounters,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no samples: their thread has no runtime");
            return;
        }
    };
    runtime.block_on(async {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                message = receiver.recv() => match message {
                    Some(WriterMessage::Sample(sample)) => match encode_line(&sample, names) {
                        Some(line) => writer.append(&line).await,
                        None => { counters.dropped.inc(); }
                    },
                    Some(WriterMessage::Close(done)) => {
                        writer.rotate().await;
                        let _ = done.send(());
                    }
                    None => return writer.rotate().await,
                },
                _ = tick.tick() => writer.rotate_if_old().await,
            }
        }
    });
}

fn encode_line(sample: &PayloadSample, names: &SampleContext) -> Option<Vec<u8>> {
    let values = |specs: &[TensorSignature], tensors: &[Tensor]| {
        let value = |(spec, tensor): (&TensorSignature, &Tensor)| {
            if names.redact.contains(&spec.name) {
                let (name, datatype) = (spec.name.clone(), spec.datatype.name());
                return SampledTensor::Redacted {
                    name,
                    datatype,
                    shape: tensor.shape.clone(),
                    redacted: true,
                };
            }
            SampledTensor::Whole(golden::golden_tensor(&spec.name, tensor))
        };
        specs.iter().zip(tensors).map(value).collect()
    };
    let line = SampleLine {
        time: sample.seconds,
        prediction_id: &sample.id,
        modeldeployment: &names.modeldeployment,
        revision: &names.revision,
        model: &sample.model,
        inputs: values(&sample.signature.inputs, &sample.inputs),
        outputs: values(&sample.signature.outputs, &sample.outputs),
    };
    let mut text = serde_json::to_vec(&line).ok()?;
    text.push(b'\n');
    Some(text)
}
