//! Actual behaviour of model versions, which the plan cannot observe.

/// The behaviour of a version.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelBehavior {
    /// Share of requests that fail.
    pub error_rate: f64,
    /// Whether it never answers requests.
    pub hangs: bool,
    /// Whether its clients wait for an answer long enough that a missing answer counts as a fault.
    pub clients_wait: bool,
    /// Share of predictions that are wrong.
    pub wrong_rate: f64,
    /// Seconds until a pod is ready.
    pub start: i64,
    /// The last line of the model server if the model cannot be loaded.
    pub load_failure: Option<&'static str>,
    /// Probability per second that a ready pod crashes.
    pub crash: f64,
}

/// Kinds of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelQuality {
    /// Without faults.
    Good,
    /// Answers with errors.
    Errors,
    /// Returns wrong predictions.
    Wrong,
    /// Never answers.
    Hanging,
    /// Never answers, and its clients leave before stable would have answered, so that its gateways
    /// count no failures.
    Deserted,
    /// Its model has another digest than the requested one.
    Unloadable,
    /// Its pods never become ready, for a temporary reason.
    Stuck,
    /// Its pods crash repeatedly.
    Crashing,
}

impl ModelQuality {
    /// The behaviour of a version of this kind.
    pub fn behavior(self) -> ModelBehavior {
        let good = ModelBehavior {
            error_rate: 0.01,
            hangs: false,
            clients_wait: true,
            wrong_rate: 0.05,
            start: 5,
            load_failure: None,
            crash: 0.0,
        };
        match self {
            Self::Good => good,
            Self::Errors => ModelBehavior { error_rate: 0.40, ..good },
            Self::Hanging => ModelBehavior { hangs: true, ..good },
            Self::Deserted => ModelBehavior { hangs: true, clients_wait: false, ..good },
            Self::Wrong => ModelBehavior { wrong_rate: 0.45, ..good },
            Self::Unloadable => ModelBehavior {
                load_failure: Some(
                    r#"{"reason":"DigestMismatch","message":"digest is sha256:ab, want sha256:cd","permanent":true}"#,
                ),
                ..good
            },
            Self::Stuck => ModelBehavior {
                load_failure: Some(
                    r#"{"reason":"DownloadFailed","message":"connection refused","permanent":false}"#,
                ),
                ..good
            },
            Self::Crashing => ModelBehavior { crash: 0.1, ..good },
        }
    }

    /// Parses the word for a kind in a script.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "good" => Self::Good,
            "errors" => Self::Errors,
            "wrong" => Self::Wrong,
            "hanging" => Self::Hanging,
            "deserted" => Self::Deserted,
            "unloadable" => Self::Unloadable,
            "stuck" => Self::Stuck,
            "crashing" => Self::Crashing,
            _ => return None,
        })
    }
}

impl ModelBehavior {
    /// Whether no gate has a reason to prefer `other`.
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        self.error_rate <= other.error_rate
            && !self.hangs
            && self.wrong_rate <= other.wrong_rate
            && self.load_failure.is_none()
            && self.crash == 0.0
    }
}
