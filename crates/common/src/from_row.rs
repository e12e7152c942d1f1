//! Rows as structs.

/// Implements [`sqlx::FromRow`] for a struct: `from_row!(Type { field, other_field = "column"; nested })`. A field is read from the column of
/// its name, or from the one that is given; a nested struct from the same row.
///
/// sqlx's derive does the same. It would compile sqlx and TLS a second time, for the compiler itself: a sixth of all crates.
#[macro_export]
macro_rules! from_row {
    ($type:ident { $($field:ident $(= $column:literal)?),+ $(; $nested:ident)? }) => {
        impl<'r> ::sqlx::FromRow<'r, ::sqlx::postgres::PgRow> for $type {
            fn from_row(row: &'r ::sqlx::postgres::PgRow) -> ::sqlx::Result<Self> {
                Ok(Self {
                    $($field: ::sqlx::Row::try_get(row, $crate::from_row!(@column $field $($column)?))?,)+
                    $($nested: ::sqlx::FromRow::from_row(row)?,)?
                })
            }
        }
    };
    (@column $field:ident) => { stringify!($field) };
    (@column $field:ident $column:literal) => { $column };
}
