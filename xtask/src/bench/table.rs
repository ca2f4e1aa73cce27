//! Tables in Markdown, and numbers that are fit to be read.

/// A table: what its columns are called, and its rows.
pub(super) struct Table {
    columns: usize,
    text: String,
}

impl Table {
    pub(super) fn new<S: AsRef<str>>(columns: &[S]) -> Self {
        let mut table = Self { columns: columns.len(), text: String::new() };
        table.row(columns);
        table.text.push_str(&format!("|{}\n", "---|".repeat(table.columns)));
        table
    }

    /// Adds a row; cells that are missing stay empty.
    pub(super) fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.text.push('|');
        for column in 0..self.columns {
            let cell = cells.get(column).map_or("", AsRef::as_ref).trim();
            self.text.push_str(&if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") });
        }
        self.text.push('\n');
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Three digits that mean something, with commas between thousands.
pub(super) fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 || v == 0.0 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

/// With its unit, or "not measured".
pub(super) fn with_unit(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(
        || "not measured".to_owned(),
        |value| format!("{} {unit}", digits(value)).trim().to_owned(),
    )
}

/// Bytes, in the unit that fits.
pub(super) fn bytes(value: Option<f64>) -> String {
    match value {
        Some(bytes) if bytes >= 1e6 => with_unit(Some(bytes / 1e6), "MB"),
        other => with_unit(other.map(|bytes| bytes / 1e3), "kB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let texts = [0.0, 0.0712, 1.0, 9.999, 12.34, 99.96, 951.4, 30_712.0, 1_234_567.0].map(digits);
        assert_eq!(texts, ["0", "0.071", "1", "10", "12.3", "100", "951", "30,712", "1,234,567"]);
        assert_eq!(with_unit(None, "us"), "not measured");
        assert_eq!(bytes(Some(2_180_000.0)), "2.18 MB");
        assert_eq!(bytes(Some(18_500.0)), "18.5 kB");
    }

    #[test]
    fn rows_have_as_many_cells_as_columns() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&["1"]);
        table.row(&["1", "2", "3"]);
        assert_eq!(table.into_text(), "| a | b |\n|---|---|\n| 1 | |\n| 1 | 2 |\n");
    }
}
