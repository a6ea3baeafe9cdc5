//! A folder, imported through the public API over a real socket.

use acmedocs::import::{ImportArgs, run};
use insula_testkit::Isolation;

use crate::house::House;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_imported_once_however_often() {
    let house = House::open().await;
    let ann = house.admin("importer", Isolation::Row).await;
    let folder = tempfile::tempdir().unwrap();
    for n in 0..30 {
        std::fs::write(folder.path().join(format!("{n:02}.md")), format!("# Title {n}\n\nwalrus number {n}\n")).unwrap();
    }
    std::fs::write(folder.path().join("latin.txt"), b"caf\xe9").unwrap();
    std::fs::create_dir(folder.path().join("Deep")).unwrap();
    std::fs::write(folder.path().join("Deep/page.html"), "<title>Page</title><p>walrus").unwrap();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(axum::serve(listener, house.app.clone()).into_future());
    let import = async |limit, token: &str| {
        run(ImportArgs {
            tenant: "importer".to_owned(),
            folder: folder.path().to_owned(),
            url: url.clone(),
            base_domain: "localhost".to_owned(),
            email: None,
            password: None,
            token: Some(token.to_owned()),
            limit,
            concurrency: 8,
        })
        .await
    };
    let token = ann.token.as_deref().unwrap();
    import(Some(10), token).await.unwrap();
    assert_eq!(ann.get("/api/documents?limit=200").await.json["items"].as_array().unwrap().len(), 10);
    for _ in 0..2 {
        import(None, token).await.unwrap();
        assert_eq!(ann.get("/api/documents?limit=200").await.json["items"].as_array().unwrap().len(), 31);
    }
    assert_eq!(ann.get("/api/search?q=walrus").await.json["total"], 31);
    assert_eq!(ann.get("/api/documents?tag=deep").await.json["items"][0]["title"], "Page");
    let refused = import(None, "wrong").await.unwrap_err().to_string();
    assert!(refused.contains("31 files failed") && refused.contains("401"), "{refused}");
    server.abort();
}
