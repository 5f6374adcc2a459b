//! Every ModelDeployment below `examples/` is accepted by an API server and represented by the
//! types without loss.

mod common;

use common::{documents, problems, root, schema, with_defaults, yaml_files};
use slipway_crds::v1alpha1::ModelDeployment;

#[test]
fn examples_are_valid_and_round_trip() {
    let schema = schema();
    let mut seen = 0;
    for file in yaml_files(&root().join("examples")) {
        for object in
            documents(&file).into_iter().filter(|object| object["kind"] == "ModelDeployment")
        {
            assert_eq!(problems(&schema, &object), Vec::<String>::new(), "{}", file.display());
            let typed: ModelDeployment = serde_json::from_value(object.clone()).unwrap();
            let written = serde_json::to_value(&typed).unwrap();
            assert_eq!(
                problems(&schema, &written),
                Vec::<String>::new(),
                "{} as written",
                file.display()
            );
            let again: ModelDeployment = serde_json::from_value(written).unwrap();
            assert_eq!(typed, again, "{}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} found");
}

/// The schema and the types must fill in the same defaults, or the operator would act on values
/// that are not visible in the object.
#[test]
fn defaults_of_types_and_schema_agree() {
    for file in yaml_files(&root().join("examples")) {
        for object in
            documents(&file).into_iter().filter(|object| object["kind"] == "ModelDeployment")
        {
            let defaulted = with_defaults(&schema(), object.clone());
            let by_schema: ModelDeployment = serde_json::from_value(defaulted).unwrap();
            let by_types: ModelDeployment = serde_json::from_value(object).unwrap();
            assert_eq!(by_schema, by_types, "{}", file.display());
        }
    }
}
