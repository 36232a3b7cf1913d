// The API key, which the tab keeps until it is closed. Without one, headers stay as they are.
const KEY = "atlas-key";

function withKey(headers) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...headers, Authorization: "Bearer " + key } : headers;
}

function listenToSignOut() {
  document.getElementById("sign-out")?.addEventListener("click", () => {
    sessionStorage.removeItem(KEY);
    location.reload();
  });
}
listenToSignOut();
