//! The models that are served.

use std::sync::{Arc, PoisonError, RwLock};

use crate::engine::Signature;
use crate::error::ApiError;
use crate::observe::Observer;
use crate::pool::Pool;
use crate::prediction::Reader;

/// A model that is ready.
#[derive(Debug)]
pub struct Model {
    /// Its name in the protocol.
    pub name: String,
    /// Its version in the protocol.
    pub version: String,
    /// `sha256:<hex>` of its file.
    pub digest: String,
    /// Its inputs and outputs.
    pub signature: Signature,
    /// Its workers.
    pub pool: Pool,
    /// How to read its predictions.
    pub reader: Reader,
    /// Who counts its traffic by the bins of its baseline, when it has one.
    pub observer: Option<Arc<Observer>>,
}

/// The models of this process by name.
#[derive(Debug)]
pub struct Models {
    /// The name of the pod's own model: before it is there, requests for it are told that it is loading.
    own: String,
    ready: RwLock<Vec<Arc<Model>>>,
}

impl Models {
    /// None yet; `own` will come.
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ready: RwLock::default() }
    }

    /// Adds a model, in the place of one of the same name and version.
    pub fn insert(&self, model: Model) -> Arc<Model> {
        let model = Arc::new(model);
        let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        ready.retain(|it| (&it.name, &it.version) != (&model.name, &model.version));
        ready.push(Arc::clone(&model));
        model
    }

    /// The pod's own model, once it is ready.
    pub fn own(&self) -> Option<Arc<Model>> {
        self.all().into_iter().find(|model| model.name == self.own)
    }

    /// All that are ready.
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model for a request; the newest of its versions when the request names none.
    ///
    /// # Errors
    /// `NotFound` when there is no such model or version; `Unavailable` while the pod's own is loading.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, ApiError> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        let mut of_name = ready.iter().rev().filter(|model| model.name == name).peekable();
        if of_name.peek().is_none() {
            return Err(if name == self.own {
                ApiError::Unavailable("the model is loading; try again later".into())
            } else {
                ApiError::NotFound(format!("there is no model {name:?} here; there is {:?}", self.own))
            });
        }
        let have: Vec<&str> = of_name.clone().map(|model| model.version.as_str()).collect();
        let found = of_name.find(|model| version.is_none_or(|v| v == model.version));
        found.map(Arc::clone).ok_or_else(|| {
            ApiError::NotFound(format!(
                "model {name:?} has no version {:?} here; there is {have:?}",
                version.unwrap_or_default()
            ))
        })
    }
}
