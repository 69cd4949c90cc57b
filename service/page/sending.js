// Requests whose body takes long: they tell how much was sent, which fetch does not.

/** As `fetch`, but calls `onSent` with the bytes of the body that were sent so far. */
export function sendAndTell(address, { method, headers, body, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, address);
    request.responseType = "blob";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => onSent(event.loaded));
    request.addEventListener("load", () => resolve(answerOf(request)));
    request.addEventListener("error", () => reject(new TypeError("no answer")));
    request.send(body);
  });
}

function answerOf(request) {
  const lines = request.getAllResponseHeaders().trim().split("\r\n").filter(Boolean);
  const headers = new Headers(lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
  return new Response(request.status === 204 ? null : request.response, { status: request.status, headers });
}
