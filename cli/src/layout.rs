//! Which column of a file goes where in which input of a model, and the reading of it.

use anyhow::{Context as _, Result, bail};
use slipway_baseline::BaselineTensorSpec;
use slipway_runtime::tensor::{DataType, Tensor, TensorData};

use crate::progress::Progress;
use crate::source::{Cell, Source};

/// Values that are held in memory: 1 GiB of float32.
const MAX_CELLS: usize = 256 << 20;

/// One input and the columns of the file that make a row of it.
#[derive(Debug)]
struct Place {
    spec: BaselineTensorSpec,
    datatype: DataType,
    /// Indices of columns in the file.
    columns: Vec<usize>,
}

/// Where the columns of a file go.
#[derive(Debug)]
pub(crate) struct Layout {
    places: Vec<Place>,
    names: Vec<String>,
    label: Option<usize>,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Rows {
    /// All rows of each input, in the model's order.
    pub(crate) inputs: Vec<Tensor>,
    /// Number of rows.
    pub(crate) rows: usize,
    /// The labels by row; `None` where the field is empty. Empty without a label column.
    pub(crate) labels: Vec<Option<String>>,
    /// Whether there were more rows than were asked for.
    pub(crate) cut: bool,
}

impl Layout {
    /// Finds a column for every element of a row of every input: by the names `input` or `input[i]`; or, where the model has one input, all
    /// columns in their order. `label` and `ignore` are columns that are no inputs.
    pub(crate) fn new(
        inputs: &[BaselineTensorSpec],
        columns: &[String],
        label: Option<&str>,
        ignore: &[String],
    ) -> Result<Self> {
        let find = |name: &str| columns.iter().position(|c| c == name);
        let named =
            |name: &str| find(name).with_context(|| format!("there is no column {name:?}; there is {columns:?}"));
        let label = label.map(named).transpose()?;
        let ignored = ignore.iter().map(|name| named(name)).collect::<Result<Vec<_>>>()?;
        let free: Vec<usize> = (0..columns.len()).filter(|i| Some(*i) != label && !ignored.contains(i)).collect();
        let mut places = Vec::new();
        for spec in inputs {
            let width = width(spec, (inputs.len() == 1).then_some(free.len()))?;
            let place =
                |columns| Ok::<_, anyhow::Error>(Place { spec: spec.clone(), datatype: datatype(spec)?, columns });
            let by_name = (0..width).map(|i| {
                let whole = if width == 1 { find(&spec.name) } else { None };
                whole.or_else(|| find(&format!("{}[{i}]", spec.name)))
            });
            if let Some(by_name) = by_name.collect::<Option<Vec<_>>>() {
                places.push(place(by_name)?);
            } else if inputs.len() == 1 && free.len() == width {
                places.push(place(free.clone())?);
            } else if inputs.len() == 1 {
                bail!(
                    "input {:?} takes {width} values a row and the data has {} columns besides the label; \
                     leave the others out with --ignore, or name them {0}[0] to {0}[{}]",
                    spec.name,
                    free.len(),
                    width - 1
                );
            } else {
                let want =
                    if width == 1 { spec.name.clone() } else { format!("{0}[0] to {0}[{1}]", spec.name, width - 1) };
                bail!("input {:?} wants columns called {want}; the data has {columns:?}", spec.name);
            }
        }
        Ok(Self { places, names: columns.to_owned(), label })
    }

    /// Reads at most `most` rows.
    pub(crate) fn read(&self, source: &mut Source, most: usize) -> Result<Rows> {
        let width: usize = self.places.iter().map(|p| p.columns.len()).sum();
        let mut data: Vec<TensorData> = self.places.iter().map(|p| TensorData::zeros(p.datatype, 0)).collect();
        let (mut rows, mut labels, mut cut) = (0, Vec::new(), false);
        let mut progress = Progress::new("reading");
        let total = source.total;
        for cells in source {
            if rows == most {
                cut = true;
                break;
            }
            let cells = cells?;
            rows += 1;
            if rows * width > MAX_CELLS {
                bail!("{rows} rows of {width} values are more than fit into memory; set --max-rows to fewer");
            }
            for (place, data) in self.places.iter().zip(&mut data) {
                for column in &place.columns {
                    let cell = cells.get(*column).unwrap_or(&Cell::Empty);
                    push(data, cell).map_err(|problem| self.error(rows, *column, &problem, place.datatype))?;
                }
            }
            if let Some(column) = self.label {
                labels.push(label(cells.get(column).unwrap_or(&Cell::Empty)));
            }
            progress.at(rows, total);
        }
        let shape = |place: &Place| {
            let trailing = place.spec.shape.get(1..).unwrap_or_default();
            // An open trailing dimension is what the width left for it.
            let trailing = trailing.iter().map(|d| usize::try_from(*d).unwrap_or(place.columns.len()));
            std::iter::once(rows).chain(trailing).collect()
        };
        let inputs = self.places.iter().zip(data).map(|(place, data)| Tensor { shape: shape(place), data }).collect();
        Ok(Rows { inputs, rows, labels, cut })
    }

    fn error(&self, row: usize, column: usize, problem: &str, datatype: DataType) -> anyhow::Error {
        let name = self.names.get(column).map_or("?", String::as_str);
        anyhow::anyhow!("row {row}, column {name:?}: {problem}; the model wants {}", datatype.name())
    }

    /// The name of each element of each input: (input, place in its row, name).
    pub(crate) fn features(&self) -> impl Iterator<Item = (usize, usize, &str)> {
        self.places.iter().enumerate().flat_map(|(input, place)| {
            let name = |column: &usize| self.names.get(*column).map_or("", String::as_str);
            place.columns.iter().enumerate().map(move |(at, column)| (input, at, name(column)))
        })
    }

    /// Values of a row of an input.
    pub(crate) fn width(&self, input: usize) -> usize {
        self.places.get(input).map_or(0, |p| p.columns.len())
    }
}

fn datatype(spec: &BaselineTensorSpec) -> Result<DataType> {
    DataType::parse(&spec.datatype).with_context(|| format!("input {:?}: no datatype {}", spec.name, spec.datatype))
}

/// Values of a row. One open dimension after the first is as long as there are columns for it.
fn width(spec: &BaselineTensorSpec, columns: Option<usize>) -> Result<usize> {
    let trailing = spec.shape.get(1..).unwrap_or_default();
    let fixed: usize = trailing.iter().filter_map(|d| usize::try_from(*d).ok()).product();
    match (trailing.iter().filter(|d| **d < 0).count(), columns) {
        (0, _) => Ok(fixed.max(1)),
        (1, Some(columns)) if fixed == 1 => Ok(columns),
        _ => bail!(
            "input {:?} has the shape {:?}, and rows of a table cannot tell its open dimensions; export the model with fixed ones",
            spec.name,
            spec.shape
        ),
    }
}

/// The text of a label: 3, 3.0 and "3" are one class.
fn label(cell: &Cell) -> Option<String> {
    let number = |x: f64| if x.fract() == 0.0 { format!("{x:.0}") } else { x.to_string() };
    match cell {
        Cell::Empty | Cell::Other(_) => None,
        Cell::Text(s) => Some(s.parse().ok().filter(|x: &f64| x.is_finite()).map_or_else(|| s.clone(), number)),
        Cell::Number(x) => Some(number(*x)),
        Cell::Integer(n) => Some(n.to_string()),
        Cell::Bool(b) => Some(u8::from(*b).to_string()),
    }
}

/// Appends a cell.
fn push(data: &mut TensorData, cell: &Cell) -> Result<(), String> {
    let shown = || match cell {
        Cell::Empty => "empty (fill it, or leave the row out)".to_owned(),
        Cell::Text(s) => format!("{:?}", s.chars().take(40).collect::<String>()),
        Cell::Number(x) => x.to_string(),
        Cell::Integer(n) => n.to_string(),
        Cell::Bool(b) => b.to_string(),
        Cell::Other(what) => (*what).to_owned(),
    };
    let float = || match cell {
        // What a missing number is to a model.
        Cell::Empty => Some(f64::NAN),
        Cell::Text(s) => s.parse().ok(),
        Cell::Number(x) => Some(*x),
        Cell::Integer(n) => Some(*n as f64),
        Cell::Bool(b) => Some(f64::from(u8::from(*b))),
        Cell::Other(_) => None,
    };
    let integer = || match cell {
        Cell::Text(s) => s.parse::<i128>().ok().or_else(|| s.parse::<f64>().ok().and_then(whole)),
        Cell::Number(x) => whole(*x),
        Cell::Integer(n) => Some(*n),
        Cell::Bool(b) => Some(i128::from(*b)),
        Cell::Empty | Cell::Other(_) => None,
    };
    macro_rules! integers {
        ($values:expr) => {
            $values.push(integer().and_then(|n| n.try_into().ok()).ok_or_else(shown)?)
        };
    }
    match data {
        TensorData::F16(v) => v.push(half(float().ok_or_else(shown)?)),
        TensorData::F32(v) => v.push(float().ok_or_else(shown)? as f32),
        TensorData::F64(v) => v.push(float().ok_or_else(shown)?),
        TensorData::U8(v) => integers!(v),
        TensorData::U16(v) => integers!(v),
        TensorData::U32(v) => integers!(v),
        TensorData::U64(v) => integers!(v),
        TensorData::I8(v) => integers!(v),
        TensorData::I16(v) => integers!(v),
        TensorData::I32(v) => integers!(v),
        TensorData::I64(v) => integers!(v),
        TensorData::Bool(v) => v.push(match cell {
            Cell::Text(s) if s.eq_ignore_ascii_case("true") => true,
            Cell::Text(s) if s.eq_ignore_ascii_case("false") => false,
            _ => match integer() {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(shown()),
            },
        }),
        TensorData::Bytes(v) => v.push(match cell {
            Cell::Empty => String::new(),
            Cell::Text(s) => s.clone(),
            Cell::Other(_) => return Err(shown()),
            Cell::Number(_) | Cell::Integer(_) | Cell::Bool(_) => shown(),
        }),
    }
    Ok(())
}

fn half(x: f64) -> half::f16 {
    half::f16::from_f64(x)
}

fn whole(x: f64) -> Option<i128> {
    (x.fract() == 0.0 && x.abs() < 1e18).then_some(x as i128)
}
