// Swagger UI on this service's own document.
const place = document.getElementById("docs");
SwaggerUIBundle({
  url: place.dataset.url,
  domNode: place,
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => ({ ...request, headers: withKey(request.headers) }),
});
