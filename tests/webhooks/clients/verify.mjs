// Judges deliveries with the official libraries and with the check that the documents print. One JSON object a line in:
// {"secrets": […], "headers": {…}, "body": "…"}; one out: {"standard": bool, "svix": bool, "documented": bool}.
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { Webhook as Standard } from "standardwebhooks";
import { Webhook as Svix } from "svix";

const passes = (check) => {
  try {
    check();
    return true;
  } catch {
    return false;
  }
};

function documented(payload, signature, secret) {
  const expected = createHmac("sha256", secret).update(JSON.stringify(payload)).digest("hex");
  return signature === expected;
}

for (const line of readFileSync(0, "utf8").split("\n")) {
  const { secret, headers, body } = JSON.parse(line);
  // A secret of another form is the key itself, which the libraries take as bytes.
  const [key, raw] = secret.startsWith("whsec_") ? [secret] : [new TextEncoder().encode(secret), { format: "raw" }];
  const answer = {
    standard: passes(() => new Standard(key, raw).verify(body, headers)),
    svix: passes(() => new Svix(key, raw).verify(body, headers)),
    documented: passes(() => {
      if (!documented(JSON.parse(body), headers["x-pluggedin-signature"], secret)) throw new Error("no");
    }),
  };
  console.log(JSON.stringify(answer));
}
