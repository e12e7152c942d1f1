//! A page of the documentation with a part that a program writes.

use std::path::Path;

use anyhow::{Context as _, bail};

const END: &str = "<!-- end -->";

/// Replaces the text between the marks `<!-- begin: written by {command} -->` and `<!-- end -->` of a page by `section`.
///
/// # Errors
/// When the page cannot be read or written, or has no marks.
pub fn write_report(page: &Path, command: &str, section: &str) -> anyhow::Result<()> {
    let context = || page.display().to_string();
    let text = std::fs::read_to_string(page).with_context(context)?;
    let begin = format!("<!-- begin: written by {command} -->");
    let found = text.split_once(&begin);
    let Some((before, (_, after))) = found.and_then(|(before, rest)| Some((before, rest.split_once(END)?)))
    else {
        bail!("{} has no marks to write between", page.display());
    };
    let replaced = format!("{before}{begin}\n\n{section}\n{END}{after}");
    std::fs::write(page, replaced).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_between_its_marks() -> anyhow::Result<()> {
        let page = std::env::temp_dir().join(format!("report-{}.md", std::process::id()));
        let marked = |section: &str| {
            format!("before\n<!-- begin: written by us -->\n{section}\n<!-- end -->\nafter\n")
        };
        std::fs::write(&page, marked("old"))?;
        write_report(&page, "us", "new\n")?;
        assert_eq!(std::fs::read_to_string(&page)?, marked("\nnew\n"));
        assert!(write_report(&page, "them", "new\n").is_err());
        std::fs::remove_file(&page)?;
        Ok(())
    }
}
