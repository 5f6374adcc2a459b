//! Commands of people: annotations whose nonce has not been handled.

use std::collections::BTreeMap;

use kube::ResourceExt;
use slipway_crds::labels;
use slipway_crds::v1alpha1::ModelDeployment;

/// Commands that wait to be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending(BTreeMap<&'static str, String>);

impl Pending {
    /// What is annotated and not handled yet. On the first sight of an object whatever is annotated counts as handled: a manifest that was copied, or restored
    /// from a backup, with old commands on it must not act on them.
    pub fn of(object: &ModelDeployment) -> Self {
        let Some(status) = &object.status else { return Self::default() };
        let asked = labels::COMMANDS.into_iter().filter_map(|command| {
            let nonce = object.annotations().get(command)?;
            (status.handled_commands.get(command) != Some(nonce)).then(|| (command, nonce.clone()))
        });
        Self(asked.collect())
    }

    /// Whether no command waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a command waits.
    pub fn has(&self, command: &str) -> bool {
        self.0.contains_key(command)
    }

    /// Takes a command out and notes it as handled.
    pub fn handle(&mut self, command: &str, handled: &mut BTreeMap<String, String>) {
        if let Some(nonce) = self.0.remove(command) {
            handled.insert(command.to_owned(), nonce);
        }
    }

    /// Notes all of them as handled.
    pub fn drop_all(&mut self, handled: &mut BTreeMap<String, String>) {
        for command in labels::COMMANDS {
            self.handle(command, handled);
        }
    }
}

/// Notes everything that is annotated on an object that is seen for the first time.
pub fn first_sight(object: &ModelDeployment, handled: &mut BTreeMap<String, String>) {
    for command in labels::COMMANDS {
        if let Some(nonce) = object.annotations().get(command) {
            handled.insert(command.to_owned(), nonce.clone());
        }
    }
}
