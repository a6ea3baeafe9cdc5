//! What `up` prints when all is ready.

use crate::up::demo::DemoTenant;
use crate::up::house::House;

/// Addresses, logins, and three commands to try.
pub(crate) fn text(house: &House, demo: &[DemoTenant], seconds: f64) -> String {
    let port = house.gateway.port();
    let mut text = format!("Ready in {seconds:.1} s.\n\n");
    text.push_str(&format!("  gateway   http://SLUG.localhost:{port}\n"));
    text.push_str(&format!(
        "  control   http://{} (key in {})\n",
        house.control,
        house.folder.root().join("admin.key").display()
    ));
    text.push_str(&format!("  console   http://{}/console/ (sign in with that key)\n", house.control));
    text.push_str(&format!("  logs      {}\n\n", house.folder.root().join("logs").display()));
    // The longest name, and what stands around each.
    let width = demo.iter().map(|t| t.slug.len()).max().unwrap_or(0) + 18 + port.to_string().len();
    for DemoTenant { slug, isolation, plan, email, password, .. } in demo {
        let url = format!("http://{slug}.localhost:{port}");
        let password = password.as_deref().unwrap_or("(not known: its first start was cut short)");
        text.push_str(&format!("  {url:width$}  {:<8}  {plan:<8}  {email}  {password}\n", isolation.as_str()));
    }
    if let Some(first) = demo.first() {
        text.push('\n');
        text.push_str(&trial(first, port, &house.folder.root().display().to_string()));
    }
    text.push_str("\nCtrl-C stops everything; nothing is lost.\n");
    text
}

fn trial(tenant: &DemoTenant, port: u16, data: &str) -> String {
    let DemoTenant { slug, email, password, .. } = tenant;
    let password = password.as_deref().unwrap_or("PASSWORD");
    // As it was called: it need not be on PATH.
    let program = std::env::args().next().unwrap_or_else(|| "insula".into());
    format!(
        "Try:\n\
         \x20 TOKEN=$(curl -s http://{slug}.localhost:{port}/api/session -H 'content-type: application/json' \
         -d '{{\"email\":\"{email}\",\"password\":\"{password}\"}}' | sed 's/.*\"token\":\"\\([^\"]*\\)\".*/\\1/')\n\
         \x20 curl -s \"http://{slug}.localhost:{port}/api/search?q=license\" -H \"authorization: Bearer $TOKEN\"\n\
         \x20 {program} tenant list --data {data}\n"
    )
}
