//! A problem as a page, for people: whoever asks with a browser reads words, not JSON.
//!
//! Not for: an application's own pages, which pass as they are. Always: a program that did not ask for HTML gets the JSON of before; the page
//! runs nothing, loads nothing, and shows what the problem says, escaped, and no more.

use axum::body::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response};

use crate::Problem;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Its one style sheet stands in it.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:15vh auto 0;max-width:32rem;padding:0 1.5rem;color:#1c2430;\
background:#fafbfc}h1{font-size:1.4rem;margin:0 0 .5rem}small{color:#68717d}\
@media(prefers-color-scheme:dark){body{color:#dfe3e8;background:#14181d}small{color:#8d96a1}}";

/// Whether somebody who accepts this wants a page: HTML is named, as browsers do, and JSON is not.
#[must_use]
pub fn is_wanted(accept: Option<&HeaderValue>) -> bool {
    let Some(accept) = accept.and_then(|accept| accept.to_str().ok()) else { return false };
    let mut html = false;
    for item in accept.split(',') {
        let mut parts = item.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        // A weight of nothing means "not this" (RFC 9110, section 12.4.2).
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        let is = |wanted: &str| kind.eq_ignore_ascii_case(wanted) && !refused;
        if is("application/json") || is("application/problem+json") {
            return false;
        }
        html |= is("text/html");
    }
    html
}

/// The problem as an answer for whoever accepts this: a page, or JSON.
#[must_use]
pub fn answer(problem: Problem, accept: Option<&HeaderValue>) -> Response<Bytes> {
    if !is_wanted(accept) {
        return problem.into_bytes();
    }
    let page = Bytes::from(page(problem.body()));
    let mut response = problem.into_bytes().map(|_| page);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HTML);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn page(problem: &insula_api::Problem) -> String {
    let (title, detail, id) = (escaped(&problem.title), escaped(&problem.detail), escaped(&problem.request_id));
    let status = problem.status;
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><p>{detail}</p><p><small>{status} · request {id}</small></p></body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use insula_core::Kind;

    use super::*;

    const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    fn wants(accept: &str) -> bool {
        is_wanted(Some(&HeaderValue::from_str(accept).unwrap()))
    }

    #[test]
    fn browsers_want_a_page_and_programs_do_not() {
        assert!(wants(FIREFOX) && wants("TEXT/HTML") && wants("application/json;q=0, text/html"));
        for accept in
            ["*/*", "", "application/json", "application/json, text/html", "text/html;q=0", "text/*", "text/html;q=0.000"]
        {
            assert!(!wants(accept), "{accept}");
        }
        assert!(!is_wanted(None));
    }

    #[test]
    fn a_page_says_what_the_problem_says_and_runs_nothing() {
        let problem = Problem::new(Kind::NoTenant).detail("<script>alert('x')</script> & \"y\"").request_id("r\"1");
        let accept = HeaderValue::from_static(FIREFOX);
        let answer = answer(problem, Some(&accept));
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.headers()[CONTENT_TYPE], HTML);
        assert!(answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
        let text = std::str::from_utf8(answer.body()).unwrap();
        assert!(text.contains("There is no such tenant") && text.contains("r&quot;1"), "{text}");
        assert!(text.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;"), "{text}");
    }

    #[test]
    fn when_to_come_back_is_said_on_a_page_too() {
        let accept = HeaderValue::from_static(FIREFOX);
        assert_eq!(answer(Problem::new(Kind::Limited), Some(&accept)).headers()["retry-after"], "1");
    }
}
