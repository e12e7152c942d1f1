//! The edit of `.env`.

/// The names of the variables that hold the service's host and its port.
pub(crate) fn address(service: &str) -> [String; 2] {
    let prefix = service.to_uppercase();
    [format!("{prefix}_HOST"), format!("{prefix}_PORT")]
}

/// The text of `.env` with the address of a new service.
pub(crate) fn with_address(text: &str, service: &str) -> String {
    let [host, port] = address(service);
    let text = text.trim_end_matches('\n');
    format!("{text}\n\n# --- {service} ---\n{host}={service}\n{port}=8080\n")
}
