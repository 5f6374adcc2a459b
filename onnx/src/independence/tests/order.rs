//! Random transposes and reshapes: rows must be where the symbolic tensor says.

use super::*;

/// A tensor in which each element is the number of its row.
struct Real {
    rows: usize,
    shape: Vec<usize>,
    elements: Vec<usize>,
}

impl Real {
    fn new(rows: usize, rest: &[usize]) -> Self {
        let length: usize = rest.iter().product();
        let elements = (0..rows * length).map(|place| place / length).collect();
        Self { rows, shape: [&[rows], rest].concat(), elements }
    }

    fn transpose(&mut self, order: &[usize]) {
        let shape: Vec<usize> = order.iter().map(|axis| self.shape[*axis]).collect();
        let stride = |axis: usize| self.shape[axis + 1..].iter().product::<usize>();
        let element = |place: usize| {
            let (mut rest, mut from) = (place, 0);
            for (size, axis) in shape.iter().zip(order).rev() {
                from += rest % size * stride(*axis);
                rest /= size;
            }
            self.elements[from]
        };
        self.elements = (0..self.elements.len()).map(element).collect();
        self.shape = shape;
    }

    fn reshape(&mut self, target: &[usize], open: usize) {
        self.shape = target.to_vec();
        self.shape[open] = 1;
        self.shape[open] = self.elements.len() / self.shape.iter().product::<usize>();
    }

    /// Whether the rows are where the symbolic tensor says.
    fn agrees(&self, tensor: &SymbolicTensor) -> bool {
        let axis = tensor.row_axis.unwrap();
        let repeats = tensor
            .repeats
            .as_ref()
            .map_or(1, |size| usize::try_from(size.as_number().unwrap()).unwrap());
        let behind: usize = self.shape[axis + 1..].iter().product();
        let part = self.shape[axis] / repeats / self.rows;
        let said = |place: usize| place / behind % self.shape[axis] / part % self.rows;
        part * repeats * self.rows == self.shape[axis]
            && self.elements.iter().enumerate().all(|(place, row)| said(place) == *row)
    }
}

fn list(numbers: impl IntoIterator<Item = impl ToString>) -> String {
    numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

/// One more node in the notation of the tests, applied to the real tensors as well. `random`
/// returns a number below its argument.
fn step(number: usize, random: &mut impl FnMut(usize) -> usize, real: &mut [Real]) -> Vec<String> {
    let (from, to) = (format!("T{number}"), format!("T{}", number + 1));
    let rank = real[0].shape.len();
    if rank > 1 && random(2) == 0 {
        let mut order: Vec<usize> = (0..rank).collect();
        (1..rank).for_each(|at| order.swap(at, random(at + 1)));
        real.iter_mut().for_each(|tensor| tensor.transpose(&order));
        return vec![format!("{to} = Transpose({from}) perm={}", list(order))];
    }
    // The factors of the size of a row are distributed; one axis is left open.
    let mut target = vec![1; 1 + random(4)];
    let open = random(target.len());
    for factor in [2, 2, 3] {
        let at = random(target.len());
        target[at] *= factor;
    }
    real.iter_mut().for_each(|tensor| tensor.reshape(&target, open));
    let sizes = target
        .iter()
        .enumerate()
        .map(|(at, size)| if at == open { "-1".into() } else { size.to_string() });
    vec![
        format!("s{number}: {} = {}", target.len(), list(sizes)),
        format!("{to} = Reshape({from}, s{number})"),
    ]
}

#[test]
fn rows_are_where_they_are_said_to_be() {
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        // Knuth's MMIX.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut followed, mut in_sequences) = (0, 0);
    for _ in 0..3000 {
        let mut lines = vec!["T0: N,2,3,2".to_owned()];
        let mut real = [2, 5, 7].map(|rows| Real::new(rows, &[2, 3, 2]));
        for number in 0..=random(6) {
            lines.extend(step(number, &mut random, &mut real));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let model = model(17, &lines);
        let mut walk =
            GraphWalk { model: &model, symbols: SymbolTable::default(), steps: 0, call_depth: 0 };
        let mut known = walk.declare_inputs().unwrap();
        if walk.visit_graph(&model.graph, &model.opsets, &mut known).is_ok() {
            let tensor = &known[&model.graph.outputs[0].name];
            assert!(real.iter().all(|real| real.agrees(tensor)), "{lines:?} {tensor:?}");
            followed += 1;
            in_sequences += usize::from(tensor.repeats.is_some());
        }
    }
    assert!(followed > 500 && in_sequences > 50, "{followed} {in_sequences}");
}
