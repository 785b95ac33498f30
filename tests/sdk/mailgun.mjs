// npm mailgun.js: send, several people, a template, a whole mail, errors.
import FormData from 'form-data'
import Mailgun from 'mailgun.js'
import { answer, failed, given } from './given.mjs'

const pointed = (key) => new Mailgun(FormData).client({ username: 'api', key, url: `${given.url}/compat/mailgun` })
const mg = pointed(given.key)
const mail = {
  from: `Shop <orders@${given.domain}>`,
  to: ['delivered@simulator.test'],
  subject: 'Grüße 🎉',
  text: 'Hi',
  html: '<p>Hi</p>',
}

const read = async () => ({
  bounces: await mg.suppressions.list(given.domain, 'bounces'),
  one: await mg.suppressions.get(given.domain, 'bounces', 'gone@simulator.test'),
  added: await mg.suppressions.create(given.domain, 'unsubscribes', { address: 'x@simulator.test' }),
  unsubscribes: await mg.suppressions.list(given.domain, 'unsubscribes'),
  removed: await mg.suppressions.destroy(given.domain, 'bounces', 'gone@simulator.test'),
  missing: await failed(() => mg.suppressions.get(given.domain, 'complaints', 'gone@simulator.test')),
})
const lists = await read()

answer({
  lists,
  sent: await mg.messages.create(given.domain, {
    ...mail,
    cc: 'cc@simulator.test',
    bcc: 'bcc@simulator.test',
    'h:Reply-To': 'help@simulator.test',
    'h:X-Order': '17',
    'o:tag': ['order', 'two words'],
    'v:order': '17',
    'o:tracking': 'yes',
    attachment: [{ filename: 'a.txt', data: Buffer.from('attached') }],
    inline: [{ filename: 'logo.png', data: Buffer.from('png'), contentType: 'image/png' }],
  }),
  each: await mg.messages.create(given.domain, {
    ...mail,
    to: ['Ann <a@simulator.test>', 'b@simulator.test'],
    text: 'Hi %recipient.name%',
    html: undefined,
    'recipient-variables': JSON.stringify({ 'a@simulator.test': { name: 'Ann' }, 'b@simulator.test': { name: 'Bob' } }),
  }),
  templated: await mg.messages.create(given.domain, {
    from: mail.from,
    to: mail.to,
    template: given.template,
    't:variables': JSON.stringify({ n: 1, name: 'Ann & Co' }),
  }),
  mime: await mg.messages.create(given.domain, {
    to: ['delivered@simulator.test'],
    message: `From: orders@${given.domain}\r\nTo: other@simulator.test\r\nSubject: whole\r\n\r\nHi\r\n`,
  }),
  events: await mg.events.get(given.domain, { event: 'accepted', limit: 2 }).then(async (first) => ({
    first: first.items,
    next: (await mg.events.get(given.domain, { page: first.pages.next.page, event: 'accepted', limit: 2 })).items,
  })),
  invalid: await failed(() => mg.messages.create(given.domain, { ...mail, to: 'nobody' })),
  foreign: await failed(() => mg.messages.create('elsewhere.example', mail)),
  wrongKey: await failed(() => pointed('nobody').messages.create(given.domain, mail)),
})
