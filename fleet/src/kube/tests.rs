use std::time::Duration;

use kube::{Client, Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{pod::tests::order, *};

/// Reads one request with its body.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "it ended within {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() >= length.parse::<usize>().unwrap() {
            return text;
        }
    }
}

async fn answer(stream: &mut TcpStream, head: &str, body: &str) {
    let text = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// As the API server's priority and fairness answers who comes too often.
#[tokio::test]
async fn an_order_that_comes_too_soon_is_made_again_when_the_api_server_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
    let fleet = KubeFleet::new(Client::try_from(config).unwrap(), None);
    let order = order("image: a");
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let first = request(&mut stream).await;
        answer(&mut stream, "429 Too Many Requests\r\nretry-after: 1", "Too many requests, please try again later.")
            .await;
        let refused = Instant::now();
        let again = request(&mut stream).await;
        let pod = first.split_once("\r\n\r\n").unwrap().1;
        answer(&mut stream, "201 Created\r\ncontent-type: application/json", pod).await;
        (first, again, refused.elapsed())
    };
    let (started, (first, again, waited)) = tokio::join!(fleet.start(&order), server);
    started.unwrap();
    assert_eq!(first, again);
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}
