//! Prints the CustomResourceDefinitions as YAML.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for crd in slipway_crds::all() {
        print!("{}", slipway_crds::to_yaml(&crd)?);
    }
    Ok(())
}
