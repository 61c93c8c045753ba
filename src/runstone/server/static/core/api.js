/** Talking to the server: one function to ask, one to change, one shape of errors, and whether the server is there. */

/** What the server said was wrong, or that it could not be reached. */
export class ApiError extends Error {
  /**
   * @param {string} code  as in the API; `gone` where nobody answered
   * @param {string} message
   * @param {number} status
   * @param {Record<string, any>} details
   */
  constructor(code, message, status = 0, details = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.details = details;
  }
}

/** `lost`, `found` (after lost) and `locked` (a token is wanted) are its events. */
export const connection = new EventTarget();
let isLost = false;

/** @param {boolean} lost */
function note(lost) {
  if (lost === isLost) return;
  isLost = lost;
  connection.dispatchEvent(new Event(lost ? "lost" : "found"));
}

/** @typedef {Record<string, string | number | boolean | string[] | null | undefined>} Query */

/**
 * @param {string} path  below `api/`, its parts already encoded
 * @param {Query} [query]
 */
export function url(path, query = {}) {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (Array.isArray(value)) value.forEach((each) => params.append(key, each));
    else if (value !== null && value !== undefined && value !== "") params.set(key, value === true ? "1" : value === false ? "0" : String(value));
  }
  const text = params.toString();
  return `api/${path}${text ? `?${text}` : ""}`;
}

/** Encode one part of a path, slashes too. @param {string} part */
export const part = (part) => encodeURIComponent(part);

/**
 * @param {string} address
 * @param {RequestInit} init
 * @param {number} tries
 * @returns {Promise<Response>}
 */
async function ask(address, init, tries) {
  for (let attempt = 1; ; attempt++) {
    try {
      const response = await fetch(address, { credentials: "same-origin", ...init });
      note(false);
      if (response.ok) return response;
      if (response.status === 401) connection.dispatchEvent(new Event("locked"));
      throw await refusal(response);
    } catch (error) {
      if (error instanceof ApiError || init.signal?.aborted) throw error;
      if (attempt < tries) {
        await new Promise((go) => setTimeout(go, 200 * attempt));
        continue;
      }
      note(true);
      throw new ApiError("gone", "the server does not answer");
    }
  }
}

/** @param {Response} response */
async function refusal(response) {
  try {
    const { error } = await response.json();
    return new ApiError(error.code, error.message, response.status, error.details ?? {});
  } catch {
    return new ApiError("internal", `the server answered ${response.status} ${response.statusText}`, response.status);
  }
}

/**
 * Ask for JSON.
 * @param {string} path
 * @param {Query} [query]
 * @param {{signal?: AbortSignal, tries?: number}} [how]
 * @returns {Promise<any>}
 */
export async function get(path, query, { signal, tries = 2 } = {}) {
  return (await ask(url(path, query), { signal }, tries)).json();
}

/**
 * Change something. Never tried twice: the first may have been done.
 * @param {"POST" | "PATCH" | "PUT" | "DELETE"} method
 * @param {string} path
 * @param {any} [body]
 * @returns {Promise<any>}
 */
export async function send(method, path, body) {
  const response = await ask(url(path), {
    method,
    headers: { "Content-Type": "application/json", "X-Runstone": "1" },
    body: body === undefined ? undefined : JSON.stringify(body),
  }, 1);
  const answer = await response.text();
  return answer ? JSON.parse(answer) : null;
}

/**
 * Ask for bytes with a body, such as series.
 * @param {string} path
 * @param {any} body
 * @param {AbortSignal} [signal]
 */
export async function bytes(path, body, signal) {
  const response = await ask(url(path), {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Runstone": "1" },
    body: JSON.stringify(body),
    signal,
  }, 2);
  return response.arrayBuffer();
}

/** Ask for text. @param {string} path @param {Query} [query] @param {AbortSignal} [signal] */
export async function words(path, query, signal) {
  return (await ask(url(path, query), { signal }, 2)).text();
}
