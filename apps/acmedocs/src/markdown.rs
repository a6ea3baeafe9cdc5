//! Text to HTML that cannot bite: whatever a document holds, no tag, script or foreign image of its author gets into the page.

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

use crate::documents::Format;

/// A document's body as HTML.
#[must_use]
pub fn render(body: &str, format: Format) -> String {
    match format {
        Format::Plain => format!("<pre class=\"plain\">{}</pre>", escape(body)),
        Format::Markdown => markdown(body),
    }
}

/// Text with the five characters that HTML minds escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
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

fn markdown(body: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS | Options::ENABLE_FOOTNOTES;
    let events = Parser::new_ext(body, options).map(|event| match event {
        // Raw HTML becomes text, which the writer below escapes.
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Link { link_type, dest_url: safe(dest_url), title, id })
        }
        // A picture from elsewhere would tell its host who reads: it becomes a link.
        Event::Start(Tag::Image { dest_url, title, id, .. }) => {
            Event::Start(Tag::Link { link_type: pulldown_cmark::LinkType::Inline, dest_url: safe(dest_url), title, id })
        }
        Event::End(TagEnd::Image) => Event::End(TagEnd::Link),
        other => other,
    });
    let mut out = String::with_capacity(body.len() * 3 / 2);
    html::push_html(&mut out, events);
    out
}

/// Links lead to the web, to mail or within; `javascript:` and its kin lead nowhere.
fn safe(link: CowStr<'_>) -> CowStr<'_> {
    // Browsers skip control characters and blanks when they look for the scheme.
    let bare: String = link.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
    let scheme =
        bare.split(['/', '?', '#']).next().and_then(|start| start.split_once(':')).map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        None | Some("http" | "https" | "mailto") => link,
        Some(_) => "#".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_author_runs() {
        for bite in [
            "<script>alert(1)</script>",
            "x <img src=x onerror=alert(1)> y",
            "[x](javascript:alert(1))",
            "[x](JaVa\tScript:alert(1))",
            "[x](data:text/html,<script>1</script>)",
            "![x](javascript:alert(1))",
            "<a href=\"javascript:alert(1)\">x</a>",
            "<javascript:alert(1)>",
            "[x]: vbscript:1\n\n[x]",
            "`<b>` <iframe src=//evil>",
        ] {
            let html = render(bite, Format::Markdown).to_lowercase();
            for tooth in ["<script", "<img", "<iframe", "<a href=\"java", "<a href=\"data", "<a href=\"vbscript"] {
                assert!(!html.contains(tooth), "{bite:?} became {html}");
            }
        }
        assert_eq!(render("<b>&", Format::Plain), "<pre class=\"plain\">&lt;b&gt;&amp;</pre>");
    }

    #[test]
    fn what_is_meant_is_shown() {
        let html = render("# T\n\n*a* [w](https://x.example/?a=b:c) [in](/documents)\n\n|a|\n|-|\n|b|\n", Format::Markdown);
        for part in ["<h1>T</h1>", "<em>a</em>", "href=\"https://x.example/?a=b:c\"", "href=\"/documents\"", "<table>"] {
            assert!(html.contains(part), "{html}");
        }
    }
}
