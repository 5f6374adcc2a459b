//! Scripts: each line changes a world at a time; the transcript is compared with the approved one.
//!
//! ```text
//! spec {"replicas": 3}       merged into the spec before the start
//! 60 ship v2 errors          at second 60: a new version and its behaviour (see `ModelQuality`)
//! 80 turn v1 stuck           at second 80: the behaviour of pods of a version that start later
//! 85 upgrade runtime:2       at second 85: the operator gets another image of the model server
//! 90 do promote              a user command
//! 95 edit {"paused": true}   any other change of the spec
//! 99 fault prometheus        prometheus, cure, wipe, crash, gateway, evict, overwrite, orphan,
//!                            deaf, dark or heal; or alter, lose or contest and a kind of object
//! 300 end
//! ```

use serde_json::{Value, json};
use slipway_testkit::merge_json;

use crate::behavior::{ModelBehavior, ModelQuality};
use crate::chaos::{give_command, set_version};
use crate::store::model_digest;
use crate::world::SimulatedWorld;

/// Plays a script and returns its transcript, or what is wrong with the script.
///
/// # Errors
/// If a line cannot be parsed; names the line.
pub fn play_script(script: &str) -> Result<String, String> {
    let lines =
        script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut spec, mut world): (Value, Option<SimulatedWorld>) = (first_spec(), None);
    for line in lines {
        let syntax_error = || format!("cannot read {line:?}");
        let (word, rest) = line.split_once(' ').ok_or_else(syntax_error)?;
        if word == "spec" {
            merge_json(
                &mut spec,
                serde_json::from_str(rest).map_err(|error| format!("{line}: {error}"))?,
            );
            continue;
        }
        let at: i64 = word.parse().map_err(|_| syntax_error())?;
        if world.is_none() {
            world = Some(begin_world(&spec)?);
        }
        let Some(world) = world.as_mut() else { continue };
        while world.now < at {
            world.tick();
        }
        if rest == "end" {
            return Ok(render_result(world));
        }
        run_line(world, rest).ok_or_else(syntax_error)?;
    }
    Err("there is no `end`".to_owned())
}

fn first_spec() -> Value {
    json!({
        "model": { "uri": "http://store/v1", "version": "v1", "digest": model_digest("v1", 0) },
        "replicas": 3,
        "analysis": { "mode": "Custom", "gates": [{ "name": "errors", "type": "ErrorRate", "errorRate": { "maxIncrease": "10%", "minRequests": 50 } }] }
    })
}

fn begin_world(spec: &Value) -> Result<SimulatedWorld, String> {
    let object = json!({
        "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": { "name": "digits", "namespace": "ml", "uid": "owner", "generation": 1 }, "spec": spec
    });
    let object = serde_json::from_value(object).map_err(|error| error.to_string())?;
    Ok(SimulatedWorld::new(object, 1))
}

fn run_line(world: &mut SimulatedWorld, line: &str) -> Option<()> {
    let (word, rest) = line.split_once(' ')?;
    match word {
        "ship" => {
            let (version, quality) = rest.split_once(' ')?;
            world.set_behavior(version, ModelQuality::from_word(quality)?.behavior());
            let number = version.strip_prefix('v')?.parse().ok()?;
            world.edit(line, |object| set_version(object, number));
        }
        "turn" => {
            let (version, quality) = rest.split_once(' ')?;
            change_behavior(world, version, ModelQuality::from_word(quality)?.behavior());
        }
        "upgrade" => upgrade_runtime(world, rest),
        "do" => give_command(world, rest, &world.now.to_string()),
        "edit" => {
            let change = serde_json::from_str(rest).ok()?;
            world.edit(line, |object| {
                let mut spec = serde_json::to_value(&object.spec).unwrap_or_default();
                merge_json(&mut spec, change);
                if let Ok(spec) = serde_json::from_value(spec) {
                    object.spec = spec;
                }
            });
        }
        "fault" => world.inject_fault(rest)?,
        _ => return None,
    }
    Some(())
}

/// Changes the behaviour of a version; ready pods stay ready.
fn change_behavior(world: &mut SimulatedWorld, version: &str, truth: ModelBehavior) {
    world.set_behavior(version, truth);
    for set in world.cluster.replica_sets.iter_mut().filter(|set| set.view.version == version) {
        set.behavior = truth;
    }
    world.log_line(&format!("fault: pods of {version} are different from now on"));
}

/// Gives the operator another image of the model server.
fn upgrade_runtime(world: &mut SimulatedWorld, image: &str) {
    image.clone_into(&mut world.cluster.runtime_image);
    world.cluster.changes += 1;
    world.log_line(&format!("upgrade: {image}"));
}

fn render_result(world: &SimulatedWorld) -> String {
    let (plans, writes) = world.cost();
    let mut lines = world.transcript.clone();
    lines.push(format!("{plans} plans, {writes} writes"));
    lines.extend(world.violations.iter().map(|what| format!("BROKEN {what}")));
    lines.push(String::new());
    lines.join("\n")
}
