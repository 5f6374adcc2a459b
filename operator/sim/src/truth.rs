//! What versions are really like. The plan never sees this.

/// How a version behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// Share of requests that fail.
    pub errors: f64,
    /// Whether it never answers.
    pub hangs: bool,
    /// Whether its clients wait long enough for an answer that somebody is to blame when there is none.
    pub waited_for: bool,
    /// Share of predictions that are wrong.
    pub wrong: f64,
    /// Seconds until a pod is ready.
    pub start: i64,
    /// Whether the model can be loaded; the string is the runtime's last line.
    pub load: Option<&'static str>,
    /// Chance that a ready pod dies, a second.
    pub crash: f64,
}

/// Kinds of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Nothing is wrong with it.
    Good,
    /// Answers with errors.
    Errors,
    /// Predicts wrongly.
    Wrong,
    /// Never answers.
    Hanging,
    /// Never answers, and its clients leave before stable would have answered: its gateways blame nobody.
    Deserted,
    /// Its bytes are not those that were asked for.
    Unloadable,
    /// Its pods never become ready, for a reason that may pass.
    Stuck,
    /// Its pods come and go.
    Crashing,
}

impl Quality {
    /// How a version of this kind behaves.
    pub fn truth(self) -> Truth {
        let good =
            Truth { errors: 0.01, hangs: false, waited_for: true, wrong: 0.05, start: 5, load: None, crash: 0.0 };
        match self {
            Self::Good => good,
            Self::Errors => Truth { errors: 0.40, ..good },
            Self::Hanging => Truth { hangs: true, ..good },
            Self::Deserted => Truth { hangs: true, waited_for: false, ..good },
            Self::Wrong => Truth { wrong: 0.45, ..good },
            Self::Unloadable => Truth {
                load: Some(
                    r#"{"reason":"DigestMismatch","message":"digest is sha256:ab, want sha256:cd","permanent":true}"#,
                ),
                ..good
            },
            Self::Stuck => Truth {
                load: Some(r#"{"reason":"DownloadFailed","message":"connection refused","permanent":false}"#),
                ..good
            },
            Self::Crashing => Truth { crash: 0.1, ..good },
        }
    }

    /// A kind by its word in a script.
    pub fn named(word: &str) -> Option<Self> {
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

impl Truth {
    /// Whether no gate has a reason to prefer the other.
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        self.errors <= other.errors
            && !self.hangs
            && self.wrong <= other.wrong
            && self.load.is_none()
            && self.crash == 0.0
    }
}
