//! One test for each brand of server.

/// Makes two tests of each `async fn(Flavor) -> Result<()>`: either named one by one, as in
/// `a_row_waits: p7_a_row_waits_on_mysql, p7_a_row_waits_on_mariadb;`, or put into a module, as in
/// `p7_a_row_waits => a_row_waits,`, whose tests are called `on_mysql` and `on_mariadb`.
#[macro_export]
macro_rules! on_both_brands {
    ($($test:path: $mysql:ident, $mariadb:ident;)*) => {$(
        #[tokio::test]
        async fn $mysql() -> anyhow::Result<()> {
            $test($crate::Flavor::MySql).await
        }

        #[tokio::test]
        async fn $mariadb() -> anyhow::Result<()> {
            $test($crate::Flavor::MariaDb).await
        }
    )*};
    ($($name:ident => $test:path),* $(,)?) => {$(
        mod $name {
            #[allow(unused_imports, reason = "a test named by its whole path needs none")]
            use super::*;

            #[tokio::test]
            async fn on_mysql() -> anyhow::Result<()> {
                $test($crate::Flavor::MySql).await
            }

            #[tokio::test]
            async fn on_mariadb() -> anyhow::Result<()> {
                $test($crate::Flavor::MariaDb).await
            }
        }
    )*};
}
