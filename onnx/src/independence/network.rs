//! Layers of neural networks that have the batch along their first axis, or along their second one
//! (recurrent layers).

use super::node_call::{NodeCall, RuleResult};
use super::size::SymbolicSize;
use super::value::SymbolicTensor;

/// Layers whose first input holds rows along its first axis and whose other inputs are weights; the
/// output has the same number of axes.
const LAYERS: &[&str] = &[
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LpPool",
    "MaxPool",
    "QLinearConv",
];
/// Similar layers whose output has the shape of the input.
const SAME_SHAPE: &[&str] =
    &["BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN"];

pub(super) fn apply_network(call: &mut NodeCall<'_>, operator: &str) -> Option<RuleResult> {
    match operator {
        "Attention" => Some(attention_rule(call)),
        "DepthToSpace" | "SpaceToDepth" => Some(along_first_axis(call, false)),
        "GRU" | "LSTM" | "RNN" => Some(recurrent_rule(call)),
        "Resize" | "Upsample" => Some(resize_rule(call)),
        _ if LAYERS.contains(&operator) => Some(layer_rule(call, operator)),
        _ => None,
    }
}

fn layer_rule(call: &mut NodeCall<'_>, operator: &str) -> RuleResult {
    if operator == "BatchNormalization" && call.node.integer("training_mode").unwrap_or(0) != 0 {
        return Err("it norms by the mean over the rows".into());
    }
    call.ensure_others_fixed(&[0])?;
    let mut made = along_first_axis(call, SAME_SHAPE.contains(&operator))?;
    let sizes = layer_sizes(call, operator);
    for tensor in &mut made {
        if let (Some(shape), Some(sizes)) = (&mut tensor.shape, &sizes) {
            for (size, known) in shape.iter_mut().skip(1).zip(sizes) {
                *size = known.clone().unwrap_or_else(|| size.clone());
            }
        }
    }
    Ok(made)
}

/// The sizes of the output of a convolution or pooling from the channels on, where they are
/// numbers.
fn layer_sizes(call: &NodeCall<'_>, operator: &str) -> Option<Vec<Option<SymbolicSize>>> {
    let input = call.input(0)?.shape.clone()?;
    let weights =
        call.input(if operator == "QLinearConv" { 3 } else { 1 }).and_then(|it| it.shape.clone());
    let places = input.get(2..)?;
    if operator.starts_with("Global") {
        let ones = places.iter().map(|_| Some(SymbolicSize::from_number(1)));
        return Some(std::iter::once(input.get(1).cloned()).chain(ones).collect());
    }
    let channels = match operator {
        "Conv" | "ConvInteger" | "QLinearConv" => weights.as_ref()?.first().cloned(),
        "AveragePool" | "LpPool" | "MaxPool" => input.get(1).cloned(),
        _ => return None,
    };
    let window = SlidingWindow::from_call(call, weights.as_deref(), places.len());
    let sizes = places
        .iter()
        .enumerate()
        .map(|(place, size)| window.as_ref()?.window_positions(place, size.as_number()?));
    Some(
        std::iter::once(channels)
            .chain(sizes.map(|size| size.map(SymbolicSize::from_number)))
            .collect(),
    )
}

/// The window of a convolution or pooling.
struct SlidingWindow {
    kernel: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    same_padding: bool,
    rounds_up: bool,
}

impl SlidingWindow {
    fn from_call(
        call: &NodeCall<'_>,
        weights: Option<&[SymbolicSize]>,
        places: usize,
    ) -> Option<Self> {
        let list = |name: &str, default: i64, length: usize| {
            call.node.integers(name).map_or_else(|| vec![default; length], <[i64]>::to_vec)
        };
        let of_weights = || weights?.get(2..)?.iter().map(SymbolicSize::as_number).collect();
        let kernel = call.node.integers("kernel_shape").map(<[i64]>::to_vec).or_else(of_weights)?;
        let auto = call.node.text("auto_pad").unwrap_or("NOTSET");
        let window = Self {
            kernel,
            strides: list("strides", 1, places),
            dilations: list("dilations", 1, places),
            pads: if auto == "NOTSET" { list("pads", 0, places * 2) } else { vec![0; places * 2] },
            same_padding: auto.starts_with("SAME"),
            rounds_up: call.node.integer("ceil_mode").unwrap_or(0) != 0,
        };
        let fits = [&window.kernel, &window.strides, &window.dilations]
            .iter()
            .all(|list| list.len() == places);
        (fits && window.pads.len() == places * 2).then_some(window)
    }

    /// The number of positions of the window along an axis of this size.
    fn window_positions(&self, place: usize, size: i64) -> Option<i64> {
        let stride = self.strides[place].max(1);
        if self.same_padding {
            return size.checked_add(stride - 1)?.checked_div(stride);
        }
        let covered = self.kernel[place]
            .checked_sub(1)?
            .checked_mul(self.dilations[place])?
            .checked_add(1)?;
        let padded = size
            .checked_add(self.pads[place])?
            .checked_add(self.pads[place + self.pads.len() / 2])?;
        let room = padded.checked_sub(covered).filter(|room| *room >= 0)?;
        // Versions differ in how they count a last, incomplete window.
        if self.rounds_up && room % stride != 0 {
            return None;
        }
        Some(room / stride + 1)
    }
}

/// The rows are along the first axis of the first input, and of the output.
fn along_first_axis(call: &mut NodeCall<'_>, same_shape: bool) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown_operator() };
    if tensor.row_axis.is_some_and(|axis| axis != 0) {
        return Err("the rows are not along the first axis of its input".into());
    }
    if shape.len() < 3 && !same_shape {
        return Err("its input has too few axes".into());
    }
    let sizes = if same_shape { shape.clone() } else { with_fresh_trailing(call, shape) };
    Ok(call.repeat_output(SymbolicTensor {
        row_axis: tensor.row_axis,
        batch_dependent: tensor.batch_dependent,
        ..SymbolicTensor::batch_independent(Some(sizes))
    }))
}

fn with_fresh_trailing(call: &mut NodeCall<'_>, shape: &[SymbolicSize]) -> Vec<SymbolicSize> {
    let rest = (1..shape.len()).map(|_| call.symbols.fresh_size());
    std::iter::once(shape[0].clone()).chain(rest).collect()
}

/// The first axis keeps its size: its scale is 1, or the requested size is the number of rows.
fn resize_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.has_rows() {
        return call.unknown_operator();
    }
    let tensor = call.required_input(0)?.clone();
    let shape = call.input_shape(0)?;
    if tensor.row_axis != Some(0) {
        return Err("the rows are not along the first axis of its input".into());
    }
    let (scales, sizes) = if call.node.op_type == "Upsample" { (1, usize::MAX) } else { (2, 3) };
    let first =
        call.node.integers("axes").map_or(Some(0), |axes| axes.iter().position(|axis| *axis == 0));
    let kept = match first {
        // The operator does not change the first axis.
        None => true,
        Some(at) => {
            let scale =
                call.input(scales).and_then(|tensor| tensor.equals_one.as_ref()?.get(at).copied());
            let size =
                call.input(sizes).and_then(|tensor| tensor.elements.as_ref()?.get(at)?.clone());
            scale == Some(true) || size.is_some_and(|size| size == shape[0])
        }
    };
    if !kept {
        return Err("it may change how many rows there are".into());
    }
    // The list of sizes may depend on the number of rows, through its first element, which was
    // checked.
    let stray = call.inputs.iter().enumerate().skip(1).any(|(number, tensor)| {
        tensor.is_some_and(|tensor| {
            tensor.has_row_axis() || tensor.batch_dependent && number != sizes
        })
    });
    if stray {
        return Err("what it does depends on the rows".into());
    }
    let sizes = with_fresh_trailing(call, &shape);
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(sizes, 0)))
}

/// X is `[length, batch, inputs]`, or `[batch, length, inputs]` with layout 1. The operator runs
/// along the sequence, for each row separately.
fn recurrent_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.has_rows() {
        return call.unknown_operator();
    }
    let batch_first = call.node.integer("layout").unwrap_or(0) != 0;
    let lstm = call.node.op_type == "LSTM";
    // Sequence lengths have one number for each row; states are `[directions, batch, hidden]`.
    let places: [(usize, usize); 4] = [
        (0, usize::from(!batch_first)),
        (4, 0),
        (5, usize::from(!batch_first)),
        (6, usize::from(!batch_first)),
    ];
    let rows = call
        .required_input(0)?
        .shape
        .clone()
        .zip(call.required_input(0)?.row_axis)
        .map(|(shape, axis)| shape[axis].clone());
    let rows = rows.ok_or("its input holds no rows")?;
    for (number, tensor) in call.inputs.iter().enumerate() {
        let Some(tensor) = tensor else { continue };
        let place = places
            .iter()
            .find(|(it, _)| *it == number && (*it < 6 || lstm))
            .map(|(_, place)| *place);
        match (tensor.row_axis, place) {
            (None, _) if tensor.batch_dependent => {
                return Err("one of its inputs depends on the number of rows".into());
            }
            // A state or a list of lengths without rows would have to have as many entries as there
            // are rows.
            (None, Some(_)) => {
                return Err("a state is the same for all rows, whose number it has to fit".into());
            }
            (None, None) => {}
            (Some(axis), Some(place)) if axis == place => {
                let same = tensor.shape.as_ref().is_some_and(|shape| shape[axis] == rows);
                if !same {
                    return Err("it joins rows with other multiples of rows".into());
                }
            }
            (Some(_), _) => return Err("the rows are not along the axis of the batch".into()),
        }
    }
    let hidden = call
        .node
        .integer("hidden_size")
        .map_or_else(|| call.symbols.fresh_size(), SymbolicSize::from_number);
    let directions =
        SymbolicSize::from_number(if call.node.text("direction") == Some("bidirectional") {
            2
        } else {
            1
        });
    let length = call
        .input_shape(0)?
        .get(usize::from(batch_first))
        .cloned()
        .ok_or("its input has too few axes")?;
    let (all, state) = if batch_first {
        (
            vec![rows.clone(), length, directions.clone(), hidden.clone()],
            vec![rows, directions, hidden],
        )
    } else {
        (
            vec![length, directions.clone(), rows.clone(), hidden.clone()],
            vec![directions, rows, hidden],
        )
    };
    let (of_all, of_state) = if batch_first { (0, 0) } else { (2, 1) };
    let outputs = [
        SymbolicTensor::with_row_axis(all, of_all),
        SymbolicTensor::with_row_axis(state.clone(), of_state),
        SymbolicTensor::with_row_axis(state, of_state),
    ];
    Ok(outputs.into_iter().take(call.node.outputs.len()).collect())
}

/// Queries, keys and values of one row attend to one another; a mask may be the same for all rows.
fn attention_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.node.domain.is_empty() {
        return call.unknown_operator();
    }
    if !call.has_rows() {
        return call.unknown_operator();
    }
    let query = call.input_shape(0)?;
    for (number, tensor) in call.inputs.iter().enumerate() {
        let Some(tensor) = tensor else { continue };
        let of_rows = tensor.row_axis == Some(0)
            && tensor.shape.as_ref().is_some_and(|shape| shape[0] == query[0]);
        let mask = number == 3
            && !tensor.has_row_axis()
            && !tensor.batch_dependent
            && is_shared_mask(tensor);
        if !of_rows && !mask {
            return Err(format!("its input {number} does not hold the rows along its first axis"));
        }
    }
    let mut shapes = vec![with_fresh_trailing(call, &query)];
    for _ in 1..call.node.outputs.len() {
        shapes.push(
            (0..4)
                .map(|at| if at == 0 { query[0].clone() } else { call.symbols.fresh_size() })
                .collect(),
        );
    }
    Ok(shapes.into_iter().map(|shape| SymbolicTensor::with_row_axis(shape, 0)).collect())
}

fn is_shared_mask(mask: &SymbolicTensor) -> bool {
    mask.shape.as_ref().is_some_and(|shape| shape.len() < 4 || shape[0].equals_number(1))
        && mask.rank() != Some(3)
}
