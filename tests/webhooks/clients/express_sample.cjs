// A receiver as the documents show it, with Express: parse, write anew, compare. Prints its port, then a line a delivery.
const crypto = require('crypto');
const express = require('express');

const secret = process.argv[2];
const app = express();
app.use(express.json());

app.post('/webhook', (req, res) => {
  const signature = req.headers['x-pluggedin-signature'];
  const hash = crypto.createHmac('sha256', secret).update(JSON.stringify(req.body)).digest('hex');
  console.log(JSON.stringify({ good: hash === signature, event: req.headers['x-pluggedin-event'], data: req.body.data }));
  if (hash !== signature) {
    return res.status(401).send('Invalid signature');
  }
  res.status(200).send('OK');
});

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
