//! The pages, as a browser sees them.

use axum::http::Method;
use insula_testkit::Isolation;

use crate::house::{Answer, House, PASSWORD, Person};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

struct Browser {
    person: Person,
    cookie: String,
}

impl Browser {
    async fn log_in(person: &Person) -> Self {
        let slug = person.host.trim_end_matches(".localhost");
        let body = format!("email=admin%40{slug}.example&password={}", PASSWORD.replace(' ', "+"));
        let answer = person.raw(Method::POST, "/login", &[FORM, ("sec-fetch-site", "same-origin")], body).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        let set = answer.headers["set-cookie"].to_str().unwrap();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax") && !set.contains("Domain"), "{set}");
        Self { person: person.clone(), cookie: set.split(';').next().unwrap().to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.person.raw(Method::GET, path, &[("cookie", &self.cookie)], "").await
    }

    async fn send(&self, path: &str, body: String) -> Answer {
        self.person.raw(Method::POST, path, &[("cookie", &self.cookie), FORM], body).await
    }
}

/// The secret in a page's form.
fn secret(page: &Answer) -> String {
    page.text.split("name=\"form\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a form").to_owned()
}

#[tokio::test]
async fn a_document_is_written_read_found_changed_and_restored() {
    let house = House::open().await;
    let browser = Browser::log_in(&house.admin("browser", Isolation::Database).await).await;
    let new = browser.get("/documents/new").await;
    let form = secret(&new);
    let body = "title=Penguin+care&body=%23+Fish%0D%0A%0D%0A<script>alert(1)</script>+[x](javascript:alert(1))&tags=Birds,+ice";
    let made = browser.send("/documents", format!("form={form}&{body}")).await;
    assert_eq!(made.status, 303, "{}", made.text);
    let path = made.headers["location"].to_str().unwrap().to_owned();

    let page = browser.get(&path).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("<h1>Fish</h1>") && page.text.contains("DOC-000001"), "{}", page.text);
    assert!(!page.text.contains("<script") && !page.text.contains("href=\"javascript"), "{}", page.text);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["cache-control"], "private, no-store");

    let found = browser.get("/documents?q=fish").await;
    assert!(found.text.contains("<mark>Fish</mark>"), "{}", found.text);
    assert!(browser.get("/documents?tag=birds").await.text.contains("Penguin care"));

    let edit = browser.get(&format!("{path}/edit")).await;
    assert!(edit.text.contains("&#60;script&#62;") || edit.text.contains("&lt;script&gt;"), "{}", edit.text);
    let changed = browser.send(&path, format!("form={form}&version=1&title=Seal+care&body=Fish")).await;
    assert_eq!(changed.status, 303, "{}", changed.text);
    // From an outdated form: the text is kept, the fault is said.
    let late = browser.send(&path, format!("form={form}&version=1&title=Lost&body=My+words")).await;
    assert_eq!(late.status, 409, "{}", late.text);
    assert!(late.text.contains("My words") && late.text.contains("version 2"), "{}", late.text);

    assert!(browser.get(&format!("{path}/versions")).await.text.contains("Penguin care"));
    let restored = browser.send(&format!("{path}/versions/1/restore"), format!("form={form}")).await;
    assert_eq!(restored.status, 303, "{}", restored.text);
    assert!(browser.get(&path).await.text.contains("Penguin care"));
    assert!(browser.get("/dashboard").await.text.contains("<svg"));
    assert_eq!(browser.send(&format!("{path}/delete"), format!("form={form}")).await.status, 303);
    assert_eq!(browser.get(&path).await.status, 404);

    let out = browser.send("/logout", format!("form={form}")).await;
    assert_eq!((out.status.as_u16(), out.headers["location"].as_bytes()), (303, b"/login".as_slice()));
    assert_eq!(browser.get("/documents").await.status, 303);
}

#[tokio::test]
async fn another_site_cannot_send_our_forms() {
    let house = House::open().await;
    let ann = house.admin("forged", Isolation::Row).await;
    let browser = Browser::log_in(&ann).await;
    let form = secret(&browser.get("/documents/new").await);
    let other = Browser::log_in(&ann).await;
    let others_form = secret(&other.get("/documents/new").await);
    for body in ["title=x&body=y".to_owned(), "form=&title=x&body=y".to_owned(), format!("form={others_form}&title=x&body=y")] {
        assert_eq!(browser.send("/documents", body).await.status, 403);
    }
    for (header, value) in [("sec-fetch-site", "cross-site"), ("origin", "http://evil.localhost")] {
        let headers = [("cookie", browser.cookie.as_str()), FORM, (header, value)];
        let answer = ann.raw(Method::POST, "/documents", &headers, format!("form={form}&title=x&body=y")).await;
        assert_eq!(answer.status, 403, "{header}");
        let login = ann.raw(Method::POST, "/login", &[FORM, (header, value)], "email=a%40b&password=x").await;
        assert_eq!(login.status, 403, "{header}");
        assert!(!login.headers.contains_key("set-cookie"));
    }
    assert_eq!(ann.get("/api/documents").await.json["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_page_wears_its_tenant_s_name_and_colour() {
    let house = House::open().await;
    let ann = house.admin("branded", Isolation::Row).await;
    let catalog = house.cell.catalog().await;
    let settings = r##"{"brand_name": "Acme <b>& Söhne", "color": "#8a1c5d", "time_zone": "Nowhere/At_All"}"##;
    sqlx::query("UPDATE catalog.tenant SET settings = $2::jsonb, version = version + 1 WHERE slug = $1")
        .bind("branded")
        .bind(settings)
        .execute(&catalog)
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    let login = loop {
        let login = ann.nobody().get("/login").await;
        if login.text.contains("Söhne") || tokio::time::Instant::now() > deadline {
            break login;
        }
        tokio::task::yield_now().await;
    };
    assert!(login.text.contains("Söhne") && !login.text.contains("<b>&"), "{}", login.text);
    assert!(ann.get("/assets/brand.css").await.text.contains("--brand: #8a1c5d"));
    assert!(ann.get("/assets/icon.svg").await.text.contains("#8a1c5d"));
    // A time zone that the database does not know costs the zone, not the dashboard.
    assert_eq!(ann.get("/api/dashboard").await.status, 200);
    catalog.close().await;
}

#[tokio::test]
async fn errors_are_pages_too() {
    let house = House::open().await;
    let ann = house.admin("faults", Isolation::Row).await;
    let browser = Browser::log_in(&ann).await;
    for path in ["/documents/none", "/documents/00000000-0000-0000-0000-000000000000/edit"] {
        let answer = browser.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["content-type"].as_bytes()),
            (404, b"text/html; charset=utf-8".as_slice())
        );
    }
    let wrong = ann.raw(Method::POST, "/login", &[FORM], "email=admin%40faults.example&password=%3Cwrong%3E").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.text.contains("Email or password is wrong") && !wrong.text.contains("wrong>"), "{}", wrong.text);
    for bad in ["/documents?after=x", "/documents?q=%00"] {
        assert_eq!(browser.get(bad).await.status, 422, "{bad}");
    }
}
