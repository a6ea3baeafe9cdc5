//! HTML files as readable text in Markdown's manner. Not a browser: good enough to read and to search.
//!
//! Always: nothing of it is trusted; what comes out is text, and is rendered as any other text.

/// The title, if there is one, and the text.
pub(crate) fn text(html: &str) -> (Option<String>, String) {
    let mut page = Page::default();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        page.words(&rest[..start]);
        rest = &rest[start..];
        rest = match rest {
            _ if rest.starts_with("<!--") => after(rest, "-->"),
            _ if rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) => {
                let end = tag_end(rest);
                page.tag(&rest[..end], &rest[end..])
            }
            _ => {
                page.words("<");
                &rest[1..]
            }
        };
    }
    page.words(rest);
    page.done()
}

#[derive(Default)]
struct Page {
    out: String,
    title: Option<String>,
    preformatted: bool,
}

impl Page {
    /// Handles a tag and returns what is left to read after it.
    fn tag<'a>(&mut self, tag: &str, rest: &'a str) -> &'a str {
        let inner = tag.trim_start_matches('<').trim_end_matches(['>', '/']);
        let (closing, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
        let name: String = inner.chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        match (name.as_str(), closing) {
            ("script" | "style" | "head" | "template" | "svg", false) => {
                let (inside, rest) = element(rest, &name);
                if name == "head" {
                    self.find_title(inside);
                }
                return rest;
            }
            ("title", false) => {
                let (inside, rest) = element(rest, "title");
                self.title.get_or_insert_with(|| decoded(inside).trim().to_owned());
                return rest;
            }
            ("h1" | "h2" | "h3" | "h4" | "h5" | "h6", false) => {
                self.block();
                let depth = name.as_bytes().get(1).map_or(1, |b| usize::from(b - b'0'));
                self.out.push_str(&"#".repeat(depth));
                self.out.push(' ');
            }
            ("li", false) => {
                self.line();
                self.out.push_str("- ");
            }
            ("pre", false) => {
                self.block();
                self.out.push_str("```\n");
                self.preformatted = true;
            }
            ("pre", true) if self.preformatted => {
                self.preformatted = false;
                self.line();
                self.out.push_str("```\n\n");
            }
            ("br" | "tr" | "dt" | "dd" | "hr", _) => self.line(),
            ("p" | "div" | "ul" | "ol" | "table" | "section" | "article" | "blockquote" | "header" | "footer" | "dl", _) => {
                self.block()
            }
            ("h1" | "h2" | "h3" | "h4" | "h5" | "h6", true) => self.block(),
            ("td" | "th", _) => self.words(" "),
            _ => {}
        }
        rest
    }

    fn find_title(&mut self, head: &str) {
        let lower = head.to_ascii_lowercase();
        if let Some(start) = lower.find("<title").and_then(|at| Some(at + lower[at..].find('>')? + 1)) {
            let (inside, _) = element(&head[start..], "title");
            self.title.get_or_insert_with(|| decoded(inside).trim().to_owned());
        }
    }

    fn words(&mut self, text: &str) {
        let text = decoded(text);
        if self.preformatted {
            self.out.push_str(&text);
            return;
        }
        for c in text.chars() {
            match c {
                c if c.is_whitespace() && self.out.ends_with(|e: char| e.is_whitespace()) => {}
                c if c.is_whitespace() => self.out.push(' '),
                c => self.out.push(c),
            }
        }
    }

    fn line(&mut self) {
        self.trim();
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    fn block(&mut self) {
        self.line();
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn trim(&mut self) {
        let end = self.out.trim_end_matches(' ').len();
        self.out.truncate(end);
    }

    fn done(self) -> (Option<String>, String) {
        let text = self.out.trim().to_owned();
        let heading = || text.lines().find_map(|line| Some(line.strip_prefix("# ")?.trim().to_owned()));
        (self.title.filter(|title| !title.is_empty()).or_else(heading), text)
    }
}

/// Where a tag ends; a `>` inside quotes is not its end. The end of the text ends it too.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, b) in text.bytes().enumerate() {
        match (quote, b) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(open), b) if open == b => quote = None,
            _ => {}
        }
    }
    // An unclosed quote would swallow the file: then the first `>` counts.
    text.find('>').map_or(text.len(), |at| at + 1)
}

/// What is inside an element, and what comes after it.
fn element<'a>(rest: &'a str, name: &str) -> (&'a str, &'a str) {
    let close = format!("</{name}");
    // ASCII lower case keeps every byte where it is.
    match rest.to_ascii_lowercase().find(&close) {
        Some(at) => (&rest[..at], after(&rest[at..], ">")),
        None => (rest, ""),
    }
}

fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.find(end).map_or("", |at| &text[at + end.len()..])
}

fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|b| b == b';');
        match end.and_then(|end| Some((character(&rest[1..end])?, end))) {
            Some((c, end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return code.ok().filter(|code| *code != 0).and_then(char::from_u32);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "copy" => '©',
        "mdash" => '—',
        "ndash" => '–',
        "hellip" => '…',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn pages_become_text() {
        let (title, body) = text(
            "<!doctype html><html><head><title>A &amp; B</title><style>p{}</style></head><body><!-- <p>no</p> -->\n<h1>Top</h1>\
             <p>One <b>two</b>\n three &lt;tag&gt;<p>Four<ul><li>x<li>y</ul><pre>a\n  b</pre><script>if (1<2) x()</script>end</body>",
        );
        assert_eq!(title.as_deref(), Some("A & B"));
        assert_eq!(body, "# Top\n\nOne two three <tag>\n\nFour\n\n- x\n- y\n\n```\na\n  b\n```\n\nend");
    }

    #[test]
    fn broken_pages_are_read_to_their_end() {
        for broken in
            ["<", "a < b", "<p", "<a href=\"x>y", "<script>", "&", "&#;&#xffffffff;&nope;", "<!--", "</", "é<é>é", "<title>"]
        {
            let _ = text(broken);
        }
        assert_eq!(text("a < b & c").1, "a < b & c");
        assert_eq!(text("<a title=\"1>0\">x</a>").1, "x");
    }
}
