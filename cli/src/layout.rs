//! Maps columns of a file to inputs of a model, and reads them.

use anyhow::{Context as _, Result, bail};
use slipway_baseline::BaselineTensorSpec;
use slipway_runtime_engine::tensor::{DataType, Tensor, TensorData};

use crate::progress::ProgressReporter;
use crate::source::{TableCell, TableReader};

/// Largest number of values that are held in memory: 1 GiB of float32.
const MAX_CELLS: usize = 256 << 20;

/// One input and the columns of the file that make up a row of it.
#[derive(Debug)]
struct InputColumns {
    spec: BaselineTensorSpec,
    datatype: DataType,
    /// Indices of columns in the file.
    columns: Vec<usize>,
}

/// The mapping of a file's columns to inputs.
#[derive(Debug)]
pub(crate) struct ColumnLayout {
    inputs: Vec<InputColumns>,
    names: Vec<String>,
    label: Option<usize>,
}

/// The rows of a file.
#[derive(Debug)]
pub(crate) struct DatasetRows {
    /// All rows of each input, in the model's order.
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) rows: usize,
    /// The labels by row; `None` where the field is empty. Empty without a label column.
    pub(crate) labels: Vec<Option<String>>,
    /// Whether the file has more rows than were requested.
    pub(crate) truncated: bool,
}

impl ColumnLayout {
    /// Finds a column for every element of a row of every input: by the names `input` or
    /// `input[i]`; or, if the model has one input, all columns in order. `label` and `ignore` are
    /// columns that are not inputs.
    pub(crate) fn new(
        inputs: &[BaselineTensorSpec],
        columns: &[String],
        label: Option<&str>,
        ignore: &[String],
    ) -> Result<Self> {
        let find = |name: &str| columns.iter().position(|c| c == name);
        let named = |name: &str| {
            find(name).with_context(|| format!("there is no column {name:?}; there is {columns:?}"))
        };
        let label = label.map(named).transpose()?;
        let ignored = ignore.iter().map(|name| named(name)).collect::<Result<Vec<_>>>()?;
        let free: Vec<usize> =
            (0..columns.len()).filter(|i| Some(*i) != label && !ignored.contains(i)).collect();
        let mut places = Vec::new();
        for spec in inputs {
            let width = row_width(spec, (inputs.len() == 1).then_some(free.len()))?;
            let place = |columns| {
                Ok::<_, anyhow::Error>(InputColumns {
                    spec: spec.clone(),
                    datatype: parse_datatype(spec)?,
                    columns,
                })
            };
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
                let want = if width == 1 {
                    spec.name.clone()
                } else {
                    format!("{0}[0] to {0}[{1}]", spec.name, width - 1)
                };
                bail!(
                    "input {:?} wants columns called {want}; the data has {columns:?}",
                    spec.name
                );
            }
        }
        Ok(Self { inputs: places, names: columns.to_owned(), label })
    }

    /// Reads at most `most` rows.
    pub(crate) fn read(&self, source: &mut TableReader, most: usize) -> Result<DatasetRows> {
        let width: usize = self.inputs.iter().map(|p| p.columns.len()).sum();
        let mut data: Vec<TensorData> =
            self.inputs.iter().map(|p| TensorData::zeros(p.datatype, 0)).collect();
        let (mut rows, mut labels, mut cut) = (0, Vec::new(), false);
        let mut progress = ProgressReporter::new("reading");
        let total = source.total;
        for cells in source {
            if rows == most {
                cut = true;
                break;
            }
            let cells = cells?;
            rows += 1;
            if rows * width > MAX_CELLS {
                bail!(
                    "{rows} rows of {width} values are more than fit into memory; set --max-rows to fewer"
                );
            }
            for (place, data) in self.inputs.iter().zip(&mut data) {
                for column in &place.columns {
                    let cell = cells.get(*column).unwrap_or(&TableCell::Empty);
                    push_cell(data, cell).map_err(|problem| {
                        self.cell_error(rows, *column, &problem, place.datatype)
                    })?;
                }
            }
            if let Some(column) = self.label {
                labels.push(label_text(cells.get(column).unwrap_or(&TableCell::Empty)));
            }
            progress.update(rows, total);
        }
        let shape = |place: &InputColumns| {
            let trailing = place.spec.shape.get(1..).unwrap_or_default();
            // The size of an open trailing dimension follows from the number of columns.
            let trailing =
                trailing.iter().map(|d| usize::try_from(*d).unwrap_or(place.columns.len()));
            std::iter::once(rows).chain(trailing).collect()
        };
        let inputs = self
            .inputs
            .iter()
            .zip(data)
            .map(|(place, data)| Tensor { shape: shape(place), data })
            .collect();
        Ok(DatasetRows { inputs, rows, labels, truncated: cut })
    }

    fn cell_error(
        &self,
        row: usize,
        column: usize,
        problem: &str,
        datatype: DataType,
    ) -> anyhow::Error {
        let name = self.names.get(column).map_or("?", String::as_str);
        anyhow::anyhow!(
            "row {row}, column {name:?}: {problem}; the model wants {}",
            datatype.name()
        )
    }

    /// The name of each element of each input: (input, index in its row, name).
    pub(crate) fn features(&self) -> impl Iterator<Item = (usize, usize, &str)> {
        self.inputs.iter().enumerate().flat_map(|(input, place)| {
            let name = |column: &usize| self.names.get(*column).map_or("", String::as_str);
            place.columns.iter().enumerate().map(move |(at, column)| (input, at, name(column)))
        })
    }

    /// Number of values in a row of an input.
    pub(crate) fn width(&self, input: usize) -> usize {
        self.inputs.get(input).map_or(0, |p| p.columns.len())
    }
}

fn parse_datatype(spec: &BaselineTensorSpec) -> Result<DataType> {
    DataType::parse(&spec.datatype)
        .with_context(|| format!("input {:?}: no datatype {}", spec.name, spec.datatype))
}

/// Number of values in a row. One open dimension after the first takes its size from the number of
/// columns.
fn row_width(spec: &BaselineTensorSpec, columns: Option<usize>) -> Result<usize> {
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

/// The text of a label: 3, 3.0 and "3" are the same class.
fn label_text(cell: &TableCell) -> Option<String> {
    let number = |x: f64| if x.fract() == 0.0 { format!("{x:.0}") } else { x.to_string() };
    match cell {
        TableCell::Empty | TableCell::Other(_) => None,
        TableCell::Text(s) => {
            Some(s.parse().ok().filter(|x: &f64| x.is_finite()).map_or_else(|| s.clone(), number))
        }
        TableCell::Number(x) => Some(number(*x)),
        TableCell::Integer(n) => Some(n.to_string()),
        TableCell::Bool(b) => Some(u8::from(*b).to_string()),
    }
}

/// Appends a cell.
fn push_cell(data: &mut TensorData, cell: &TableCell) -> Result<(), String> {
    let shown = || match cell {
        TableCell::Empty => "empty (fill it, or leave the row out)".to_owned(),
        TableCell::Text(s) => format!("{:?}", s.chars().take(40).collect::<String>()),
        TableCell::Number(x) => x.to_string(),
        TableCell::Integer(n) => n.to_string(),
        TableCell::Bool(b) => b.to_string(),
        TableCell::Other(what) => (*what).to_owned(),
    };
    let float = || match cell {
        // Models represent a missing number as NaN.
        TableCell::Empty => Some(f64::NAN),
        TableCell::Text(s) => s.parse().ok(),
        TableCell::Number(x) => Some(*x),
        TableCell::Integer(n) => Some(*n as f64),
        TableCell::Bool(b) => Some(f64::from(u8::from(*b))),
        TableCell::Other(_) => None,
    };
    let integer = || match cell {
        TableCell::Text(s) => {
            s.parse::<i128>().ok().or_else(|| s.parse::<f64>().ok().and_then(to_integer))
        }
        TableCell::Number(x) => to_integer(*x),
        TableCell::Integer(n) => Some(*n),
        TableCell::Bool(b) => Some(i128::from(*b)),
        TableCell::Empty | TableCell::Other(_) => None,
    };
    macro_rules! integers {
        ($values:expr) => {
            $values.push(integer().and_then(|n| n.try_into().ok()).ok_or_else(shown)?)
        };
    }
    match data {
        TensorData::F16(v) => v.push(to_f16(float().ok_or_else(shown)?)),
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
            TableCell::Text(s) if s.eq_ignore_ascii_case("true") => true,
            TableCell::Text(s) if s.eq_ignore_ascii_case("false") => false,
            _ => match integer() {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(shown()),
            },
        }),
        TensorData::Bytes(v) => v.push(match cell {
            TableCell::Empty => String::new(),
            TableCell::Text(s) => s.clone(),
            TableCell::Other(_) => return Err(shown()),
            TableCell::Number(_) | TableCell::Integer(_) | TableCell::Bool(_) => shown(),
        }),
    }
    Ok(())
}

fn to_f16(x: f64) -> half::f16 {
    half::f16::from_f64(x)
}

fn to_integer(x: f64) -> Option<i128> {
    (x.fract() == 0.0 && x.abs() < 1e18).then_some(x as i128)
}
