//! A page with sections that benchmarks write: between `<!-- name -->` and `<!-- /name -->`.

/// The page with `section` between the markers called `name`.
///
/// # Errors
/// When the markers are not there, each once and in order.
pub(crate) fn replace(page: &str, name: &str, section: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let missing = || format!("the page needs {begin} and {end}, once each");
    let (before, rest) = page.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    if rest.contains(&begin) || after.contains(&end) {
        return Err(missing());
    }
    Ok(format!("{before}{begin}\n{}\n{end}{after}", section.trim_end()))
}
