// npm nodemailer: STARTTLS and TLS, a file and a picture, a wrong key, a foreign From.
import { readFileSync } from 'node:fs'
import nodemailer from 'nodemailer'
import { answer, failed, given } from './given.mjs'

const to = (port, secure, pass) =>
  nodemailer.createTransport({
    host: '127.0.0.1', port, secure, requireTLS: !secure,
    auth: { user: 'apikey', pass }, tls: { ca: readFileSync(given.ca) },
  })

const mail = {
  from: `Shop <orders@${given.domain}>`,
  to: ['Ann <ann@one.test>', 'ben@one.test'],
  cc: 'cleo@one.test',
  bcc: 'dan@one.test',
  subject: 'Grüße 🎉',
  text: 'Hi',
  html: '<p>Hi <img src="cid:dot"></p>',
  headers: { 'X-Tag': 'welcome', 'X-Metadata-Order': '17' },
  attachments: [
    { filename: 'été.txt', content: 'an attachment' },
    { filename: 'dot.png', content: Buffer.from('89504e470d0a1a0a', 'hex'), cid: 'dot' },
  ],
}

answer({
  starttls: await to(given.starttls, false, given.key).sendMail(mail),
  tls: await to(given.tls, true, given.key).sendMail(mail),
  wrong: await failed(() => to(given.tls, true, 're_wrong').sendMail(mail)),
  foreign: await failed(() => to(given.tls, true, given.key).sendMail({ ...mail, from: 'x@elsewhere.test' })),
})
