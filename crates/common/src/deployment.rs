//! What a production deployment refuses.

/// The passwords of the repository's `.env`, which everybody can read.
const PASSWORDS_OF_DEVELOPMENT: [&str; 13] = [
    "write_model_password",
    "write_model_owner_password",
    "read_model_password",
    "read_model_owner_password",
    "pydist_password",
    "migration_password",
    "create_buy_order_password",
    "buy_order_voider_password",
    "fetch_buy_orders_password",
    "read_model_sync_password",
    // What the images of the servers bring.
    "guest",
    "postgres",
    "rabbitmq",
];

/// The values of `DEPLOYMENT`. The default is the first.
pub(crate) const DEPLOYMENTS: [&str; 2] = ["development", PRODUCTION];

pub(crate) const PRODUCTION: &str = "production";

/// Whether everybody can know this password.
pub(crate) fn is_public(password: &str) -> bool {
    PASSWORDS_OF_DEVELOPMENT.contains(&password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_password_of_the_repositorys_env_file_is_public() {
        let passwords: Vec<&str> = include_str!("../../../.env")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .filter(|(name, value)| {
                !value.is_empty() && (name.ends_with("_PWD") || name.ends_with("_PASSWORD"))
            })
            .map(|(_, value)| value)
            .collect();
        assert_eq!(passwords.len(), 12);
        for password in passwords {
            assert!(is_public(password), "{password}");
        }
    }
}
