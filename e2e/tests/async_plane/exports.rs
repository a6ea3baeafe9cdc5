//! A batch export, from the request to the file.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use anyhow::{Context, Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::Up;
use reqwest::StatusCode;
use serde_json::json;

use crate::stage::{ask_for_export, export_is, follow};

/// The files of a zip.
pub(crate) fn files(bytes: Vec<u8>) -> Result<BTreeMap<String, String>> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes))?;
    let mut files = BTreeMap::new();
    for at in 0..zip.len() {
        let mut file = zip.by_index(at)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        files.insert(file.name()?.into_owned(), text);
    }
    Ok(files)
}

pub(crate) async fn a_zip_of_the_tenants_own_documents(up: &Up) -> Result<()> {
    let own = User::log_in(up, &up.tenant("exporting", "gold", "row")?).await?;
    let other = User::log_in(up, &up.tenant("elsewhere", "gold", "row")?).await?;
    other.write("Of another", "not for them").await?;
    for n in 1..=7 {
        own.write(&format!("Letter {n}"), &format!("Dear reader {n}")).await?;
    }

    let id = ask_for_export(&own).await?;
    let done = export_is(&own, &id, "done").await?;
    assert_eq!((&done["progress"]["documents"], &done["progress"]["of"]), (&json!(7), &json!(7)), "{done}");

    let link = done["download"].as_str().context("no link")?;
    let answer = follow(up, "exporting", link).await?.error_for_status()?;
    assert_eq!(answer.headers()["content-type"], "application/zip");
    let files = files(answer.bytes().await?.to_vec())?;
    assert_eq!(files.len(), 8, "seven documents and the index: {:?}", files.keys());
    for n in 1..=7 {
        assert_eq!(files[&format!("documents/DOC-{n:06} Letter {n}.md")], format!("Dear reader {n}"));
    }
    ensure!(!files.values().any(|text| text.contains("not for them")), "another tenant's document");

    // The link opens this file, of this tenant, and nothing else.
    for (slug, link) in
        [("elsewhere", link.to_owned()), ("exporting", format!("{link}0")), ("exporting", link.replace("until=1", "until=2"))]
    {
        assert_eq!(follow(up, slug, &link).await?.status(), StatusCode::NOT_FOUND, "{slug} {link}");
    }
    Ok(())
}
