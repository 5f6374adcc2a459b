//! Reads rows of a CSV or Parquet file, cell by cell.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;

/// One value in the type that the file has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TableCell {
    /// An empty field or a null.
    Empty,
    /// A text; in CSV also numbers.
    Text(String),
    Number(f64),
    Integer(i128),
    Bool(bool),
    /// A type that tensors do not support; its name.
    Other(&'static str),
}

/// A file that is being read.
pub(crate) struct TableReader {
    /// Names of the columns.
    pub(crate) columns: Vec<String>,
    /// Number of rows, where the file declares it.
    pub(crate) total: Option<usize>,
    rows: Box<dyn Iterator<Item = Result<Vec<TableCell>>>>,
}

impl std::fmt::Debug for TableReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableReader").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl TableReader {
    /// Opens a file; the extension of its name selects the format.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let ending =
            path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let opened = match ending.as_str() {
            "csv" => Self::open_csv(path),
            "parquet" | "pq" => Self::open_parquet(path),
            _ => bail!("{}: the name must end in .csv or .parquet", path.display()),
        };
        opened.with_context(|| format!("cannot read {}", path.display()))
    }

    fn open_csv(path: &Path) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path)?;
        let columns =
            reader.headers()?.iter().map(|h| h.trim_start_matches('\u{feff}').to_owned()).collect();
        let rows = reader.into_records().enumerate().map(|(i, record)| {
            let record = record.with_context(|| format!("row {}", i + 1))?;
            let cell = |text: &str| {
                if text.is_empty() { TableCell::Empty } else { TableCell::Text(text.to_owned()) }
            };
            Ok(record.iter().map(cell).collect())
        });
        Ok(Self { columns, total: None, rows: Box::new(rows) })
    }

    fn open_parquet(path: &Path) -> Result<Self> {
        let reader = SerializedFileReader::new(File::open(path)?)?;
        let metadata = reader.metadata().file_metadata();
        let fields = metadata.schema().get_fields();
        let columns: Vec<_> = fields.iter().map(|f| f.name().to_owned()).collect();
        let total = usize::try_from(metadata.num_rows()).ok();
        let rows = reader.into_iter().enumerate().map(|(i, row)| {
            let row = row.with_context(|| {
                format!("row {}; of the codecs we read Snappy and none: write it with compression=\"snappy\"", i + 1)
            })?;
            Ok(row.get_column_iter().map(|(_, field)| cell_from_field(field)).collect())
        });
        Ok(Self { columns, total, rows: Box::new(rows) })
    }
}

impl Iterator for TableReader {
    type Item = Result<Vec<TableCell>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}

fn cell_from_field(field: &Field) -> TableCell {
    match field {
        Field::Null => TableCell::Empty,
        Field::Bool(b) => TableCell::Bool(*b),
        Field::Byte(n) => TableCell::Integer((*n).into()),
        Field::Short(n) => TableCell::Integer((*n).into()),
        Field::Int(n) => TableCell::Integer((*n).into()),
        Field::Long(n) => TableCell::Integer((*n).into()),
        Field::UByte(n) => TableCell::Integer((*n).into()),
        Field::UShort(n) => TableCell::Integer((*n).into()),
        Field::UInt(n) => TableCell::Integer((*n).into()),
        Field::ULong(n) => TableCell::Integer((*n).into()),
        Field::Float16(x) => TableCell::Number(x.to_f64()),
        Field::Float(x) => TableCell::Number((*x).into()),
        Field::Double(x) => TableCell::Number(*x),
        Field::Str(s) if s.is_empty() => TableCell::Empty,
        Field::Str(s) => TableCell::Text(s.clone()),
        Field::Bytes(b) => std::str::from_utf8(b.data())
            .map_or(TableCell::Other("bytes"), |s| TableCell::Text(s.to_owned())),
        Field::Decimal(_) => TableCell::Other("a decimal"),
        Field::Group(_) => TableCell::Other("a group"),
        Field::ListInternal(_) => TableCell::Other("a list"),
        Field::MapInternal(_) => TableCell::Other("a map"),
        _ => TableCell::Other("a date or time"),
    }
}
