//! Parameters of a request, an input or an output.

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use slipway_runtime_engine::batch::RequestPriority;
use slipway_runtime_engine::error::PredictError;

use crate::json::parse_part;

/// A map of parameters and its place in the request.
pub(crate) struct ParameterMap<'p> {
    map: Option<Map<String, Value>>,
    path: &'p str,
}

impl<'p> ParameterMap<'p> {
    /// Creates the map from parsed JSON.
    pub(crate) fn new(map: Map<String, Value>, path: &'p str) -> Self {
        Self { map: Some(map), path }
    }

    pub(super) fn read(raw: Option<&RawValue>, path: &'p str) -> Result<Self, PredictError> {
        Ok(Self {
            map: raw.map(|r| parse_part(r, &format!("{path}.parameters"))).transpose()?,
            path,
        })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.map.as_ref()?.get(name)
    }

    fn invalid(&self, name: &str, want: &str) -> PredictError {
        PredictError::invalid(format!("{}.parameters.{name} must be {want}", self.path))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, PredictError> {
        self.get(name)
            .map(|v| v.as_bool().ok_or_else(|| self.invalid(name, "true or false")))
            .transpose()
    }

    pub(super) fn size(&self, name: &str) -> Result<Option<usize>, PredictError> {
        let size = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        self.get(name)
            .map(|v| size(v).ok_or_else(|| self.invalid(name, "a number of bytes")))
            .transpose()
    }

    /// Rejects parameters for features that this server lacks, such as shared memory, which work
    /// only on one machine or with another server.
    pub(crate) fn refuse_input(&self) -> Result<(), PredictError> {
        self.refuse("shared_memory_region", "send the data in the request")
    }

    pub(crate) fn refuse_output(&self) -> Result<(), PredictError> {
        self.refuse("shared_memory_region", "the data comes in the response")?;
        self.refuse("classification", "ask for the output itself")
    }

    fn refuse(&self, name: &str, remedy: &str) -> Result<(), PredictError> {
        match self.get(name) {
            // Triton's clients send this when they do not request a classification.
            Some(Value::Number(n)) if name == "classification" && n.as_u64() == Some(0) => Ok(()),
            Some(_) => Err(PredictError::invalid(format!(
                "{}.parameters.{name} is not supported; {remedy}",
                self.path
            ))),
            None => Ok(()),
        }
    }

    /// A whole number, which some clients send as a string.
    fn whole_number(&self, name: &str, what: &str) -> Result<Option<u64>, PredictError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
        number.map(Some).ok_or_else(|| self.invalid(name, what))
    }

    /// The timeout in microseconds, as in Triton, whose clients send the number also as a string. 0
    /// means none.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, PredictError> {
        let micros = self.whole_number("timeout", "a whole number of microseconds")?;
        Ok(micros.filter(|n| *n > 0).map(Duration::from_micros))
    }

    /// The priority, as in Triton: 1 is served first, larger numbers later, 0 means the default.
    pub(crate) fn priority(&self) -> Result<RequestPriority, PredictError> {
        let want = "0 (the default) or 1 (served first) to 3 (served last)";
        let level = self.whole_number("priority", want)?.unwrap_or(0);
        RequestPriority::from_level(level).ok_or_else(|| self.invalid("priority", want))
    }
}
